"""What every side of a contest is given: models, pictures, classes."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel

from benchmarks.engine.model_sets import SETS, STARTER, write_models
from benchmarks.samples import copy_samples, sample_classes
from schemas.campaign import ModelsConfig

FULL_SIZE: Final = (1333, 800)
"""Of the pictures for full-size models, as large as the detector takes them."""
CLASSES: Final = 10
LOOP_IMAGES: Final = 16
"""Most images of a side that takes one after the other, whose speed does not depend on how many they are."""


class Setting(BaseModel):
    """The same for all sides; small, so that it can travel to a process of a side's own."""

    name: str
    """Of the model set."""
    config: ModelsConfig
    folder: Path
    """Of the pictures."""
    images: int
    """Pictures that are labelled from memory; there may be more files."""
    classes: list[str]

    @property
    def full_size(self) -> bool:
        """Whether the models are full-size ones."""
        return self.name != STARTER.name

    def files(self) -> list[Path]:
        """All pictures, in order."""
        return sorted(self.folder.rglob("*.jpg"))


def prepare(name: str, folder: Path, images: int, files: int) -> Setting:
    """Make models and pictures.

    Args:
        name: Of SETS.
        folder: Gets both.
        images: Pictures that are labelled from memory.
        files: Pictures that are labelled from files, at least as many.
    """
    setting = Setting(
        name=name,
        config=write_models(SETS[name], folder),
        folder=folder / "images",
        images=images,
        classes=sample_classes()[:CLASSES],
    )
    copies = copy_samples(setting.folder, files)
    if setting.full_size:
        _enlarge(copies)
    return setting


def _enlarge(files: list[Path]) -> None:
    from PIL import Image

    for file in files:
        with Image.open(file) as opened:
            opened.convert("RGB").resize(FULL_SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
