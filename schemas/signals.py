"""The signals that a threshold may ask for, by the names of their columns."""

from typing import Final

from pydantic import Field, model_validator

from schemas.base import Strict


class Thresholds(Strict):
    """Least value of each signal named here, at least one; a label is accepted when all of them hold."""

    detector_score: float | None = Field(None, ge=0, le=1, examples=[0.6], description="Detector score of the class.")
    detector_margin: float | None = Field(
        None, ge=-1, le=1, examples=[0.1], description="Detector score of the class less that of the second class."
    )
    sam_iou: float | None = Field(None, ge=0, le=1, examples=[0.85], description="IoU that SAM predicts for its mask.")
    mask_stability: float | None = Field(
        None, ge=0, le=1, examples=[0.9], description="IoU of the mask cut at a higher and at a lower logit."
    )
    mask_box_iou: float | None = Field(
        None, ge=0, le=1, examples=[0.7], description="IoU of the box and the mask's own box."
    )
    clip_probability: float | None = Field(
        None, ge=0, le=1, examples=[0.8], description="CLIP probability of the class on the crop."
    )
    clip_margin: float | None = Field(
        None, ge=-1, le=1, examples=[0.3], description="CLIP probability of the class less that of the best other text."
    )

    @model_validator(mode="after")
    def _names_one(self) -> "Thresholds":
        if not self.required():
            raise ValueError("names no signal, which would accept everything; give at least one least value")
        return self

    def required(self) -> dict[str, float]:
        """The signals asked for, with their least values, in the order declared."""
        return {name: value for name, value in self if value is not None}


SIGNALS: Final = tuple(Thresholds.model_fields)
