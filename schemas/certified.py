"""What came of `vouch certify`: certificates group by group, with or without a policy."""

from pydantic import Field

from schemas.base import Strict
from schemas.campaign.routing import Gate
from schemas.policy import Group, Reviewers


class ClassEstimate(Strict):
    """Precision of a class's accepted labels, drawn towards that of its group; for reading, not certified."""

    name: str = Field(description="Class name.")
    group: str = Field(description="Name of its group.")
    accepted: int = Field(ge=0, description="Labels of it that are accepted.")
    reviewed: int = Field(ge=0, description="Reviewed ones among them.")
    errors: int = Field(ge=0, description="Wrong ones of these.")
    precision: float | None = Field(None, description="Estimate; None where nothing is accepted, or reviewed.")


class Certified(Strict):
    """The result of certifying a run."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    version: str | None = Field(description="Of the policy that was written; None: nothing could be certified.")
    in_force: bool = Field(False, description="The run is routed by that policy already.")
    precision: float = Field(description="T.")
    confidence: float = Field(description="1 - delta.")
    gate: Gate = Field(description="What the promise is about.")
    look: int = Field(ge=1, description="Which look at certification labels this was.")
    delta: float = Field(description="What this look may spend of 1 - confidence, for all groups.")
    groups: tuple[Group, ...] = Field(description="With their certificates.")
    not_sampled: tuple[str, ...] = Field((), description="Classes without a label in the sample: they go to people.")
    classes: tuple[ClassEstimate, ...] = Field(description="Of the groups that are certified.")
    labels: int = Field(ge=0, description="Labels of the run.")
    kept_for_fitting: int = Field(ge=0, description="Of them, those of images kept for fitting: they go to review.")
    accepted: int = Field(ge=0, description="Of them, those that the policy accepts.")
    reviewers: Reviewers = Field(description="What known-wrong plants showed.")
    simulated: bool = Field(description="Verdicts came from a simulated reviewer.")
    more_reviews: int | None = Field(None, description="About how many more would certify something; None: unknown.")
    remarks: tuple[str, ...] = Field((), description="What else there is to know, in words.")
