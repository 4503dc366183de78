"""What the data set looks like that comes out."""

from typing import Literal

from pydantic import Field, model_validator

from schemas.base import Strict


class Splits(Strict):
    """Shares of images in train, val and test."""

    train: float = Field(0.8, ge=0, le=1, description="Share of images for training.")
    val: float = Field(0.1, ge=0, le=1, description="Share of images for validation.")
    test: float = Field(0.1, ge=0, le=1, description="Share of images for testing.")
    seed: int = Field(0, ge=0, description="Seed of the split; an image keeps its split when others come.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> "Splits":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, not {total:g}")
        return self


class Licence(Strict):
    """A licence of the images, as COCO names it."""

    name: str = Field(min_length=1, examples=["CC BY 4.0"], description="Name of the licence.")
    url: str = Field("", examples=["https://creativecommons.org/licenses/by/4.0/"], description="Address of its text.")


class ExportConfig(Strict):
    """A COCO instances data set."""

    name: str = Field(
        "coco", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Folder under workspace/exports."
    )
    preset: Literal["coco", "detectron2", "yolox", "rtdetr", "torchvision", "zero_based"] = Field(
        "coco", description="Trainer that will read it: sets the category id that comes first."
    )
    undecided: Literal["ignore", "drop", "include"] = Field(
        "ignore",
        description="Boxes waiting for review: crowd regions that trainers ignore, left out, or plain labels.",
    )
    images: Literal["none", "link", "copy"] = Field(
        "none", description="Also put the images there: hard or symbolic links (folders only), or copies."
    )
    splits: Splits | None = Field(None, description="Also write one file a split; empty: one file for all.")
    description: str = Field("", description="Goes into the data set's info.")
    contributor: str = Field("", description="Goes into the data set's info.")
    licences: tuple[Licence, ...] = Field((), description="Licences of the images, the first is every image's.")
