"""Which labels are accepted without a person."""

from pydantic import Field

from schemas.base import Strict
from schemas.signals import Thresholds


class RoutingConfig(Strict):
    """Nothing is accepted unless a threshold here, or a policy, allows it."""

    accept: Thresholds | None = Field(
        None, description="Signals a label needs to be accepted; empty: every label goes to review."
    )
    policy: str | None = Field(
        None,
        examples=["2026-01"],
        description="Version of a policy in the workspace (policies/<version>.json) to route by instead.",
    )
