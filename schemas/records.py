"""Defines the records that runs keep in the workspace: plans, markers, image outcomes; status and summary of a run."""

from typing import Literal, NamedTuple

from pydantic import Field

from vouch_labels.schemas.campaign import Gate, Strict

Step = Literal["fetch", "acquire", "detect", "segment", "score", "presence", "route"]


class ImageRef(NamedTuple):
    """One object of the source as the plan saw it; a tuple, since there are millions."""

    key: str
    """Key relative to the source's uri, with forward slashes."""
    etag: str
    """The store's version tag; empty when a manifest gives none."""
    size: int
    """Bytes; -1 when a manifest gives none."""


class Failed(Strict):
    """An image that could not be labelled; it can be retried alone, and one that was not fetched is, by every run."""

    step: Step = Field(description="Step that gave it up.")
    reason: str = Field(description="One line for people.")


class ShardRef(Strict):
    """One unit of work of a plan."""

    id: str = Field(description="Hex of SHA-256 over its sorted (key, etag, size) and attempt.")
    count: int = Field(ge=1, description="Images in it.")
    first_key: str = Field(description="Its least key, for people.")


class Generation(Strict):
    """What one planning added: written last, so a plan without it does not exist."""

    number: int = Field(ge=1, description="1, 2, 3 ...; of two plans that name a key the later one holds.")
    shards: tuple[ShardRef, ...] = Field(description="New units of work, in key order.")
    removed: int = Field(ge=0, description="Images that have left the source.")
    removed_id: str = Field(
        "", description="Hex of SHA-256 over their keys, in plan/<number>-<removed_id>-removed.parquet; empty if none."
    )
    listed: int = Field(ge=0, description="Images that the source had.")


class Part(Strict):
    """One table file of a shard."""

    name: str = Field(description="Key relative to the run's folder.")
    sha256: str = Field(description="Hex of SHA-256 over its bytes.")
    rows: int = Field(ge=0, description="Rows in it.")


class ClassCounts(Strict):
    """How the labels of one class were decided."""

    accepted: int = Field(0, ge=0)
    review: int = Field(0, ge=0)


class ShardCounts(Strict):
    """How a shard's images and labels ended; done + failed = images, and so for labels, over all classes."""

    images: int = Field(ge=0)
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so.")


class Marker(Strict):
    """Says that a shard is done; parts without it do not exist."""

    shard: str = Field(description="Shard id.")
    fingerprint: str = Field(description="Of everything that its rows depend on, beside the images.")
    stages: dict[str, str] = Field(description="Stage name -> key of what that stage depends on.")
    parts: dict[str, Part] = Field(description="Stage name -> its table.")
    counts: ShardCounts


class Current(Strict):
    """Which markers of a run are the ones to read: those of its last settings."""

    fingerprint: str = Field(description="As in the markers.")
    policy: str = Field(description="Version of the policy.")
    classes: tuple[str, ...] = Field(description="Class names, in the order declared.")
    inputs: dict[str, str] = Field({}, description="What labels depend on (models, prompts ...) -> its fingerprint.")


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
    shards_processed: int = Field(ge=0, description="Processed by this run; the others were done.")
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
    images_per_second: float = Field(ge=0, description="Of the images processed by this run.")
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
