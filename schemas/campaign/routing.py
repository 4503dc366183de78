"""Which labels are accepted without a person."""

from typing import Literal

from pydantic import Field

from schemas.base import Strict
from schemas.signals import Thresholds

Gate = Literal["delivered", "accepted"]


class RoutingConfig(Strict):
    """Nothing is accepted unless a threshold here, or a policy, allows it."""

    precision: float = Field(
        0.95, gt=0.5, lt=1, description="Share of labels that must be correct: what `vouch certify` promises."
    )
    confidence: float = Field(
        0.9, ge=0.5, lt=1, description="Confidence of that promise, for all groups of classes together."
    )
    gate: Gate = Field(
        "delivered",
        description="What the promise is about: all labels of the data set, those that people kept included "
        "(delivered), or those alone that no person looked at (accepted).",
    )
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn for review.")
    accept: Thresholds | None = Field(
        None,
        description="Signals a label needs to be accepted while no certified policy is in force; empty: every label "
        "goes to review.",
    )
    policy: str | None = Field(
        None,
        examples=["certified-1-0a1b2c3d"],
        description="Version of a policy in the workspace (policies/<version>.json) to route by; empty: the one that "
        "`vouch apply` put in force, if any; none: no policy, only the thresholds here.",
    )
