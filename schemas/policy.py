"""The routing policy: which labels are accepted, by which rule, on whose word."""

from typing import Literal

from pydantic import Field

from schemas.base import Strict
from schemas.signals import Thresholds


class Group(Strict):
    """Classes that share one rule."""

    name: str = Field(description="Name for people.")
    classes: tuple[str, ...] = Field(min_length=1, description="Class names.")
    accept: Thresholds | None = Field(description="What a label needs; None: every label goes to review.")


class Policy(Strict):
    """A versioned set of rules, kept as policies/<version>.json."""

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Its name.")
    basis: Literal["user_thresholds"] = Field(
        "user_thresholds", description="Why it may accept: thresholds that the user allowed, uncertified."
    )
    groups: tuple[Group, ...] = Field(min_length=1, description="Every class is in exactly one.")
