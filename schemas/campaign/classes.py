"""What is to be found: a class, its prompts, its look-alikes, its thresholds."""

import unicodedata

from pydantic import Field, field_validator, model_validator

from schemas.base import Strict
from schemas.signals import Thresholds


class ClassConfig(Strict):
    """One class of the data set; a plain string stands for its name alone."""

    name: str = Field(min_length=1, max_length=200, examples=["cat"], description="Name of the category in the export.")
    prompts: tuple[str, ...] = Field(
        (),
        examples=[["cat", "kitten"]],
        description="Texts that the detector looks for and CLIP compares with; the name when empty.",
    )
    negatives: tuple[str, ...] = Field(
        (),
        examples=[["dog", "fox"]],
        description="Texts of look-alikes: an object that fits one of them better is not of this class.",
    )
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        examples=[0.35],
        description="Detector score below which no label is made; models.detector's when empty.",
    )
    accept: Thresholds | None = Field(
        None, description="Signals a label of this class needs to be accepted; routing.accept when empty."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _stripped(cls, value: str) -> str:
        name = value.strip()
        if not name or any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for letter in name):
            raise ValueError("the name of a class must be one line of text")
        return name

    @field_validator("prompts", "negatives")
    @classmethod
    def _texts_said(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        texts = tuple(text.strip() for text in value)
        if not all(texts):
            raise ValueError("an empty prompt finds nothing; remove it")
        return tuple(dict.fromkeys(texts))

    @property
    def texts(self) -> tuple[str, ...]:
        """The positive prompts, the class name when none is given."""
        return self.prompts or (self.name,)
