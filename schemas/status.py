"""How far a campaign is."""

from pydantic import Field

from schemas.base import Strict
from schemas.campaign.routing import Gate
from schemas.records import ClassCounts


class ExportStatus(Strict):
    """The data set that the campaign names, as it was last written."""

    uri: str = Field(description="Folder or s3:// uri of the data set.")
    images: int = Field(ge=0, description="Images in it.")
    annotations: int = Field(ge=0, description="Annotations in it, crowd regions included.")


class PolicyStatus(Strict):
    """The policy in force: by which the next run decides."""

    version: str | None = Field(description="Its version; None: it cannot be used, and problem says why.")
    basis: str = Field(description="On what basis it accepts, in words; empty where it cannot be used.")
    certified: bool = Field(description="Whether people's reviews certify it, and audits have not ended that.")
    simulated: bool = Field(description="Whether a simulated reviewer answered, so that nothing is certified.")
    precision: float | None = Field(None, description="T, of policies that rest on reviews.")
    confidence: float | None = Field(None, description="1 - delta, of the same.")
    gate: Gate | None = Field(None, description="What the promise is about, of the same.")
    created: str | None = Field(None, description="When it was certified, ISO 8601, UTC; of the same.")
    expired: str = Field("", description="Why its promise has ended; empty while it holds.")
    problem: str = Field("", description="Why it cannot be used, and what to do; empty if it can.")
    waiting: str | None = Field(None, description="Version of a newer certified policy that could be put in force.")


class ReviewStatus(Strict):
    """What people were asked about the labels as they are, and what they answered."""

    plans: int = Field(ge=0, description="Review plans of the run.")
    open: int = Field(ge=0, description="Tasks without an answer, each once, however many plans ask.")
    open_of: dict[int, int] = Field(description="Number of plan -> its tasks without an answer.")
    verdicts: int = Field(ge=0, description="Verdicts in the workspace, of whatever run.")
    simulated: int = Field(ge=0, description="Of them, those of simulated reviewers.")


class RunStatus(Strict):
    """What the workspace says about a run; done + failed + pending = images."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    running: str | None = Field(description="Process and machine that hold the run now; None: it rests.")
    images: int = Field(ge=0, description="Images of the source, as of the last plan.")
    done: int = Field(ge=0, description="Of them, labelled.")
    failed: int = Field(ge=0, description="Of them, given up with a reason.")
    pending: int = Field(ge=0, description="Of them, in shards that are not done.")
    shards: int = Field(ge=0, description="Shards planned.")
    shards_done: int = Field(ge=0, description="Of them, done under the settings last used.")
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so, the most frequent first.")
    policy: str | None = Field(description="Version of the policy that decided; None before the first run.")
    in_force: PolicyStatus = Field(description="The policy by which the next run decides.")
    reviews: ReviewStatus = Field(description="What people were asked and have answered.")
    export: ExportStatus | None = Field(description="The data set; None before it is written.")
    next: str = Field(description="What to do next, in words; CAMPAIGN stands for the campaign file.")
