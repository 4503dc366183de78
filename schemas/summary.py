"""What a run reports when it ends."""

from pydantic import Field

from schemas.base import Strict
from schemas.records import ClassCounts


class ExportOutcome(Strict):
    """Where the data set lies and how large it is."""

    uri: str = Field(description="Folder or s3:// uri of the data set.")
    annotations_file: str = Field(description="Its annotations.json.")
    images: int = Field(ge=0)
    annotations: int = Field(ge=0, description="Crowd regions of undecided boxes included.")
    accepted: int = Field(ge=0, description="Of them, plain labels because a policy accepted them.")
    human: int = Field(
        0, ge=0, description="Of them, plain labels because people called them correct, corrected or drew them."
    )
    rejected: int = Field(0, ge=0, description="Labels left out because people said that there is no such object.")
    split_files: list[str] = Field(default_factory=list, description="Beside it, the annotation file of each split.")
    images_rotated: int = Field(
        0, ge=0, description="Images whose EXIF orientation a reader must apply, or boxes will not fit."
    )
    images_missed: int = Field(
        0, ge=0, description="Images that could not be copied or linked: gone, or changed since they were labelled."
    )


class RunSummary(Strict):
    """The whole run in figures; done + failed + pending = images."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    images: int = Field(ge=0, description="Images that the source holds.")
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    pending: int = Field(ge=0, description="Images of shards that could not be finished.")
    new_images: int = Field(ge=0, description="Of the images, those planned by this run: new, changed or retried.")
    removed_images: int = Field(ge=0, description="Images that left the source since the run before.")
    shards: int = Field(ge=0, description="Units of work, all runs together.")
    shards_processed: int = Field(ge=0, description="Worked off by this run; the others were done.")
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so.")
    policy: str = Field(description="Version of the policy that decided.")
    policy_basis: str = Field(description="On what basis it accepts, in words.")
    policy_expired: str = Field("", description="Why the policy in force accepts nothing any more; empty: it holds.")
    accepts: bool = Field(description="Whether the policy can accept anything.")
    shard_errors: dict[str, str] = Field(description="Shard id -> why it could not be finished.")
    seconds: float = Field(ge=0, description="Wall-clock time of this run.")
    images_per_second: float = Field(ge=0, description="Of the images worked off by this run.")
    export: ExportOutcome | None = Field(description="The data set, unless none was asked for.")


class ClassChange(Strict):
    """How the labels of one class were decided before, and are now."""

    before: ClassCounts
    after: ClassCounts


class ApplySummary(Strict):
    """What a policy changed when it was applied to the labels of a run."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    policy: str = Field(description="Version of the policy that decides now.")
    policy_basis: str = Field(description="On what basis it accepts, in words.")
    policy_before: str = Field(description="Version of the policy that decided before.")
    labels: int = Field(ge=0)
    accepted_before: int = Field(ge=0)
    accepted: int = Field(ge=0)
    changed: int = Field(ge=0, description="Labels that are decided otherwise now.")
    classes: dict[str, ClassChange] = Field(description="Class name -> its labels, before and now.")
    pending: int = Field(ge=0, description="Images of shards that are not labelled yet; `vouch run` does them.")
    seconds: float = Field(ge=0, description="Wall-clock time, that of the export included.")
    export: ExportOutcome | None = Field(description="The data set, unless none was asked for.")
