"""What came of `vouch plan-reviews`: the plan, and in words what was drawn and why."""

from typing import Literal

from pydantic import Field

from schemas.base import Strict
from schemas.reviews import ReviewPlan

Stage = Literal["first", "certify", "audit", "queue"]
"""Labels to fit to; certification sample; blind audit of accepted labels; doubtful labels."""


class Planned(Strict):
    """A review plan as written."""

    stage: Stage = Field(description="What was drawn.")
    plan: ReviewPlan = Field(description="The plan.")
    open: int = Field(ge=0, description="Its tasks that have no answer yet; earlier verdicts may answer some.")
    simulated: int = Field(0, ge=0, description="Its tasks about labels that a simulated reviewer has answered.")
    earlier_open: int = Field(0, ge=0, description="Tasks of earlier plans that still wait for an answer.")
    words: tuple[str, ...] = Field(description="What was drawn and why.")
    next: tuple[str, ...] = Field(description="Commands that come next.")
