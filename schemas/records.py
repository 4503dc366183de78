"""Defines the records that runs keep in the workspace: plans, markers, image outcomes; status and summary of a run."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from pydantic import Field

from vouch_labels.schemas.campaign import DRAWN, Gate, Strict, Undecided
from vouch_labels.schemas.text import (
    Block,
    Table,
    count,
    duration,
    facts,
    files_remarks,
    outside_text,
    plural,
    policy_name,
    policy_with_basis,
    some,
)

_COMMAND: Final = re.compile(r"vouch [a-z-]+ CAMPAIGN")

MOST_REASONS: Final = 12
"""Reasons of failed images that are named."""

FEW_CLASSES: Final = 5
"""Classes that the bundled models do not know that are named."""

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
    skip: bool = Field(False, description="No failure but a file that is no image, nor says so; reason is its kind.")


class ShardRef(Strict):
    """One unit of work of a plan."""

    id: str = Field(description="Hex of SHA-256 over its sorted (key, etag, size) and attempt.")
    count: int = Field(ge=1, description="Images in it.")
    first_key: str = Field(description="Its least key, for people.")


class Generation(Strict):
    """What one planning added: written last, so a plan without it does not exist."""

    number: int = Field(ge=1, description="1, 2, 3 ...; of two plans that name a key the later one holds.")
    shards: tuple[ShardRef, ...] = Field(description="New units of work, in key order; empty where a table has them.")
    shards_id: str = Field(
        "",
        description="Hex of SHA-256 over their ids, in plan/<number>-<shards_id>-shards.parquet; else empty.",
    )
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


_OUTSIDE: Final = "Labels for review that the policy would accept, if its certificate covered them."


class ShardCounts(Strict):
    """How a shard's images and labels ended; done + failed + skipped = images, and so for labels, over all classes."""

    images: int = Field(ge=0)
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so.")
    skipped: dict[str, int] = Field({}, description="Of the images, files that are none: kind -> files.")
    misnamed: int = Field(0, ge=0, description="Images done whose names end as another format's do.")
    outside: int = Field(0, ge=0, description=_OUTSIDE)


_FIRST_FAILED: Final = "Key, step and reason of the first images that failed."
_UNKNOWN: Final = "Class that the bundled models do not know -> what they know that may be meant; '': nothing is near."
_WITHOUT_LABEL: Final = "Class -> labels that people answered about and that are not there any more; '': of no plan."


class SumOfMarkers(Strict):
    """Sum of some shards' counts, as markers had them."""

    digest: str = Field(description="Hash of the ids of these shards, and of how many images each held.")
    shards: int = Field(ge=0, description="How many.")
    counts: ShardCounts


class Sums(Strict):
    """What `vouch run` adds up at its end, so that `vouch status` need not read a marker a shard."""

    parts: dict[str, SumOfMarkers] = Field(description="First two digits of shards' ids -> the sum of these shards.")


class Marker(Strict):
    """Says that a shard is done; parts without it do not exist."""

    shard: str = Field(description="Shard id.")
    fingerprint: str = Field(description="Of everything that its rows depend on, beside the images.")
    stages: dict[str, str] = Field(description="Stage name -> key of what that stage depends on.")
    parts: dict[str, Part] = Field(description="Stage name -> its table.")
    counts: ShardCounts
    found: dict[str, Part] = Field(
        {}, description="Key of texts asked together -> all that the detector found for them."
    )
    masks: str = Field("", description="Key of what the masks depend on beside their boxes; empty in older markers.")
    numbers: Part | None = Field(None, description="The numbers of its labels in one table; None in older markers.")


class Current(Strict):
    """Which markers of a run are the ones to read: those of its last settings."""

    fingerprint: str = Field(description="As in the markers.")
    policy: str = Field(description="Version of the policy.")
    classes: tuple[str, ...] = Field(description="Class names, in the order declared, as labels carry them.")
    names: dict[str, str] = Field({}, description="Name that labels carry -> present name, of renamed classes.")
    merged: dict[str, str] = Field({}, description="Former class -> the class that it is part of now.")
    added: dict[str, datetime] = Field({}, description="Class that came after the first run -> when.")
    inputs: dict[str, str] = Field({}, description="What labels depend on (models, prompts ...) -> its fingerprint.")
    skipped: dict[str, int] = Field({}, description="Kind -> files of the last listing that were not taken.")
    recipe: str = Field("", description="Of all that the stage keys are made of, told without loading a model.")
    stages: dict[str, str] = Field({}, description="Stage name -> key of what that stage depends on, as in markers.")

    @property
    def former(self) -> dict[str, str]:
        """The former name of a class -> its present name, of classes that were renamed or merged."""
        return self.names | {old: self.names.get(name, name) for old, name in self.merged.items()}

    @property
    def shown(self) -> tuple[str, ...]:
        """The present names of the classes."""
        return tuple(self.names.get(name, name) for name in self.classes)


class Imported(Strict):
    """Labels of a file that a run takes as they are, beside what its detector finds."""

    file: str = Field(description="Name of the file.")
    sha256: str = Field(description="Hex of SHA-256 over it.")
    table: str = Field("", description="Hex of SHA-256 over the table that holds its labels.")
    images: int = Field(ge=0, description="Images of the source that it names.")
    labels: int = Field(ge=0, description="Labels taken.")
    left_out: dict[str, int] = Field(description="Why -> annotations, or images, that were not taken.")
    renamed: dict[str, str] = Field({}, description="Category of the file -> class that its labels were taken as.")

    def blocks(self) -> Iterator[Block]:
        """What was taken, and what was not."""
        yield f"{plural(self.labels, 'label')} of {plural(self.images, 'image')} taken from {self.file}"
        for why, number in self.left_out.items():
            yield f"left out: {number:,} {why}"
        yield "next: vouch run CAMPAIGN masks, scores and routes them"


class Suspect(Strict):
    """A label that is likely wrong."""

    rank: int = Field(ge=1, description="1: the most likely.")
    kind: Literal["class", "box", "duplicate", "missing"] = Field(description="What is wrong with it, if it is.")
    score: float = Field(ge=0, le=1, description="For ordering alone: no probability.")
    key: str = Field(description="Of its image.")
    name: str | None = Field(description="The annotation; None where one is missing.")
    class_name: str = Field(description="Its class; of a missing one the class that the models see.")
    better_class: str | None = Field(None, description="The class that CLIP sees.")


class AuditSummary(Strict):
    """What models doubt in the labels of a data set."""

    imported: Imported
    images: int = Field(ge=0, description="Images of the source.")
    failed: int = Field(ge=0, description="Of them, those that could not be read.")
    kinds: dict[str, int] = Field(description="Kind -> suspects with a score of .5 or more.")
    first: list[Suspect] = Field(description="The first suspects.")
    table: str = Field(description="The file with all of them.")
    picture: str | None = Field(description="The picture with the first; None where no image could be read.")
    measure: str = Field(description="A campaign of these labels alone, by which people certify how right they are.")
    bundled: tuple[str, ...] = Field((), description="Models that are bundled: they know drawn things.")

    def blocks(self) -> Iterator[Block]:
        """What was looked at, what is doubted most, and where the rest is."""
        yield f"{plural(self.imported.labels, 'label')} of {plural(self.imported.images, 'image')} looked at"
        if self.failed:
            yield f"{plural(self.failed, 'image')} could not be read: vouch status CAMPAIGN names them"
        yield from (f"left out: {number:,} {why}" for why, number in self.imported.left_out.items())
        doubts = ", ".join(f"{kind} {number:,}" for kind, number in self.kinds.items())
        yield f"likely wrong (score .5 or more): {doubts}"
        rows = [
            (
                str(one.rank),
                one.kind,
                f"{one.score:.2f}",
                one.class_name,
                one.better_class or "",
                one.name or "",
                one.key,
            )
            for one in self.first
        ]
        yield Table("", {"": str, "kind": str, "score": str, "class": str, "or": str, "label": str, "image": str}, rows)
        yield from bundled_models(self.bundled)
        yield f"all of them: {self.table}"
        if self.picture:
            yield f"picture of the first: {self.picture}"
        yield (
            f"how right the data set is, people certify: vouch run {self.measure}, then "
            f"vouch plan-reviews {self.measure} --images 40, vouch review {self.measure}, vouch certify {self.measure}"
        )


class ExportStatus(Strict):
    """The data set that the campaign names, as it was last written."""

    uri: str = Field(description="Folder or s3:// uri of the data set.")
    images: int = Field(ge=0, description="Images in it.")
    annotations: int = Field(ge=0, description="Annotations in it, crowd regions included.")
    usable: int = Field(ge=0, description="Of them, those that a trainer learns from: no crowd regions.")


class PolicyStatus(Strict):
    """The active policy: by which the next run decides."""

    version: str | None = Field(description="Its version; None: it cannot be used, and problem says why.")
    basis: str = Field(description="On what basis it accepts, in words; empty where it cannot be used.")
    certified: bool = Field(description="Whether people's reviews certify it, and audits have not ended that.")
    simulated: bool = Field(description="Whether a simulated reviewer answered, so that nothing is certified.")
    precision: float | None = Field(None, description="T, of policies that rest on reviews.")
    confidence: float | None = Field(None, description="1 - delta, of the same.")
    gate: Gate | None = Field(None, description="What the guarantee is about, of the same.")
    created: str | None = Field(None, description="When it was certified, ISO 8601, UTC; of the same.")
    expired: str = Field("", description="Why its guarantee has ended; empty while it holds.")
    problem: str = Field("", description="Why it cannot be used, and what to do; empty if it can.")
    waiting: str | None = Field(None, description="Version of a newer certified policy that could be activated.")


class ReviewStatus(Strict):
    """What people were asked about the labels as they are, and what they answered."""

    plans: int = Field(ge=0, description="Review plans of the run.")
    open: int = Field(ge=0, description="Tasks without an answer, each once, however many plans ask.")
    open_of: dict[int, int] = Field(description="Number of plan -> its tasks without an answer.")
    verdicts: int = Field(ge=0, description="Verdicts in the workspace, of whatever run.")
    simulated: int = Field(ge=0, description="Of them, those of simulated reviewers.")


class Labelled(Strict):
    """How the labels of some images were decided, and which of the models are bundled."""

    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    bundled: tuple[str, ...] = Field((), description="Models of the campaign that are bundled: they know drawn things.")
    unknown_classes: dict[str, str] = Field({}, description=_UNKNOWN)


class RunFigures(Labelled):
    """A run in figures, as its status and its summary have them; done + failed + pending = images."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    images: int = Field(ge=0, description="Images of the source, as of the last plan.")
    done: int = Field(ge=0, description="Of them, labelled.")
    failed: int = Field(ge=0, description="Of them, given up with a reason.")
    pending: int = Field(ge=0, description="Of them, in shards that are not done.")
    shards: int = Field(ge=0, description="Shards planned, all runs together.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so, the most frequent first.")
    failed_images: list[tuple[str, str, str]] = Field([], description=_FIRST_FAILED)
    skipped: dict[str, int] = Field({}, description="Kind -> files of the source that are no images to label.")
    misnamed: int = Field(0, ge=0, description="Of the images done, those whose names end as another format's do.")
    outside: int = Field(0, ge=0, description=_OUTSIDE)
    answers_without_label: dict[str, int] = Field({}, description=_WITHOUT_LABEL)


class RunStatus(RunFigures):
    """What the workspace says about a run."""

    running: str | None = Field(description="Process and machine that hold the run now; None: it rests.")
    shards_done: int = Field(ge=0, description="Of them, done under the settings last used.")
    policy: str | None = Field(description="Version of the policy that decided; None before the first run.")
    in_force: PolicyStatus = Field(description="The policy by which the next run decides.")
    reviews: ReviewStatus = Field(description="What people were asked and have answered.")
    export: ExportStatus | None = Field(description="The data set; None before it is written.")
    other_campaign: str = Field(
        "", description="Why these figures seem to be another campaign's: its source or classes; empty: they do not."
    )
    next: str = Field(description="What to do next, in words; CAMPAIGN stands for the campaign file.")

    def blocks(self) -> Iterator[Block]:
        """How far the run is, what decides, and what comes next."""
        usable = self.accepted if self.export is None else self.export.usable
        if self.done and not usable and self.running is None:
            command = _COMMAND.search(self.next)
            yield not_usable_yet(self.review, command[0] if command else self.next)
        idle = "idle" if self.shards else "not started: vouch run CAMPAIGN starts it"
        simulated = f" ({self.reviews.simulated:,} by a simulated reviewer)" if self.reviews.simulated else ""
        values = {
            "now": f"running: {self.running}" if self.running else idle,
            "shards": f"{self.shards_done:,} of {self.shards:,} done",
            "images": count(self.images),
            "done": count(self.done),
            "failed": count(self.failed),
            "pending": count(self.pending),
            "labels": count(self.labels),
            "accepted": count(self.accepted),
            "review": count(self.review),
            "decided by": policy_name(self.policy or "no policy yet"),
            "review tasks": f"{self.reviews.open:,} open, {plural(self.reviews.plans, 'plan')} so far",
            "verdicts": f"{self.reviews.verdicts:,}{simulated}",
        }
        yield facts(f"run {self.run}", values)
        if self.labels:
            yield _class_table(self.classes)
        yield from _reasons(self.reasons, self.failed_images)
        yield from files_remarks(self.skipped, self.misnamed)
        yield from _without_label(self.answers_without_label)
        active, export = self.in_force, self.export
        expired = f"; it has EXPIRED: {active.expired}" if active.expired else ""
        if active.version is None or active.problem:
            yield "active policy: none that can be used"
        else:
            yield f"active policy: {policy_with_basis(active.version, active.basis)}{expired}"
            if self.outside:
                yield outside_text(self.outside)
        size = f"{plural(export.images, 'image')}, {plural(export.annotations, 'annotation')}" if export else ""
        yield f"data set: {f'{export.uri} ({size})' if export else 'not written yet'}"
        yield f"workspace: {self.workspace}"
        if self.other_campaign:
            yield self.other_campaign
        yield from bundled_models(self.bundled, self.unknown_classes)
        yield f"next: {self.next}"


MANY_ANNOTATIONS: Final = 1_000_000
"""Annotations of a data set in one file (half a gigabyte) from which on the summary speaks of several."""


class ExportOutcome(Strict):
    """Where the data set lies and how large it is."""

    uri: str = Field(description="Folder or s3:// uri of the data set.")
    formats: list[str] = Field(["coco"], description="What it is written as.")
    undecided_as: Undecided = Field("ignore", description="What became of labels that wait for review.")
    annotations_file: str = Field(description="Its annotations.json, or the first of its annotation files.")
    files: int = Field(1, ge=1, description="Annotation files, those of splits and of every format included.")
    images: int = Field(ge=0)
    annotations: int = Field(ge=0, description="Crowd regions of undecided boxes included.")
    accepted: int = Field(ge=0, description="Of them, plain labels because a policy accepted them.")
    human: int = Field(
        0, ge=0, description="Of them, plain labels because people called them correct, corrected or drew them."
    )
    unreviewed: int = Field(
        0, ge=0, description="Of them, plain labels although they wait for review, where the campaign wants it so."
    )
    undecided: int = Field(0, ge=0, description="Labels that wait for review, written or not.")
    rejected: int = Field(0, ge=0, description="Labels left out because people said that there is no such object.")
    duplicates: int = Field(
        0, ge=0, description="Labels left out because another shows the object that people corrected them to."
    )
    split_files: list[str] = Field(default_factory=list, description="Beside it, the annotation file of each split.")
    images_left_out: int = Field(0, ge=0, description="Images that are left out because a label in them waits.")
    images_filled: int = Field(0, ge=0, description="Of the images, those in which regions are filled with grey.")
    waiting_of_left_out: dict[int, int] = Field(
        {}, description="Labels that wait in an image that is left out -> images with so many."
    )
    images_rotated: int = Field(
        0, ge=0, description="Images whose EXIF orientation a reader must apply, or boxes will not fit."
    )
    images_missed: int = Field(
        0, ge=0, description="Images that are left out of it because they could not be copied or linked."
    )
    missed: dict[str, str] = Field({}, description="Key -> why, of the first of them.")
    not_guaranteed: str = Field("", description="Why a certified policy guarantees nothing of this data set.")
    precision_of_rest: float | None = Field(
        None, description="What a guarantee leaves for the labels in it, where images are left out; see `Guarantee`."
    )
    others: "list[ExportOutcome]" = Field([], description="The data sets in further formats.")

    @property
    def usable(self) -> int:
        """Annotations that a trainer learns from: plain labels, and no crowd regions."""
        return self.accepted + self.human + self.unreviewed

    def blocks(self) -> Iterator[Block]:
        """How large the data set is and where it lies; first of all, whether there is anything to learn from."""
        if not self.usable:
            yield not_usable_yet(self.undecided, all_left_out=self.images_left_out)
        yield (
            f"{plural(self.images, 'image')}, {plural(self.annotations, 'annotation')}, {self.accepted:,} accepted, "
            f"{self.human:,} verified by people"
        )
        yield from self.places()

    def places(self) -> Iterator[str]:
        """Where the data set lies, and what a reader of its labels and images must know."""
        if self.not_guaranteed:
            yield f"nothing is guaranteed of this data set: {self.not_guaranteed}"
        more = self.files - 1 - len(self.split_files)
        yield f"data set: {self.annotations_file}" + (f" and {plural(more, 'file')} more" if more > 0 else "")
        yield from self._undecided()
        yield from (f"    split: {file}" for file in self.split_files)
        if self.annotations > MANY_ANNOTATIONS and self.files == 1 + len(self.split_files):
            yield (
                f"{self.annotations:,} annotations in one file are more than most readers hold in memory: "
                "export.images_per_file: 50000 makes several files of them"
            )
        if self.duplicates:
            yield f"{plural(self.duplicates, 'label')} left out: as corrected by people, another shows the same object"
        if self.images_rotated:
            carry = plural(self.images_rotated, "of its images carries", "of its images carry")
            yield (
                f"{carry} an EXIF orientation, and boxes are those of the upright image: OpenCV turns it by itself, "
                "with Pillow call ImageOps.exif_transpose"
            )
        if self.images_missed:
            yield (
                f"{plural(self.images_missed, 'image')} could not be put beside the annotations, and "
                f"{'is' if self.images_missed == 1 else 'are'} left out of the data set:"
            )
            yield from (f"    {key}: {reason}" for key, reason in self.missed.items())
            if more := self.images_missed - len(self.missed):
                yield f"    and {more:,} more, which the log file names"
        for other in self.others:
            yield f"{plural(other.images, 'image')}, {plural(other.annotations, 'annotation')} in {other.formats[0]}"
            yield from other.places()

    def _undecided(self) -> Iterator[str]:
        """What became of images for labels that wait, and how many answers bring how many of them back."""
        if self.images_filled:
            yield (
                f"{plural(self.images_filled, 'image')} written again with regions in grey, where a label waits for "
                "review"
            )
        if not self.images_left_out:
            return
        answers = sum(waits * images for waits, images in self.waiting_of_left_out.items())
        yield (
            f"{self.images_left_out:,} of {plural(self.images + self.images_left_out, 'image')} left out: "
            f"{plural(answers, 'undecided label')}; {answers_to_free(self.waiting_of_left_out)}"
        )
        if self.precision_of_rest is not None:
            yield (
                "the guarantee is about the labels of all images; of those that are left, a share of "
                f"{self.precision_of_rest:.3f} is correct at least"
            )


MOST_FREED: Final = 0.8
"""Share of the images that are left out for which the answers are counted: the rest takes most answers."""


def answers_to_free(waiting: Mapping[int, int]) -> str:
    """Say how many answers bring how many images back, those first that wait for fewest.

    waiting: Labels that wait in an image -> images with so many.
    """
    images = sum(waiting.values())
    target = math.ceil(MOST_FREED * images)
    answers = freed = 0
    for waits, many in sorted(waiting.items()):
        taken = min(many, target - freed)
        answers, freed = answers + waits * taken, freed + taken
    return f"{plural(answers, 'answer frees', 'answers free')} {freed:,} of them"


class RunSummary(RunFigures):
    """What a run did, and what the workspace holds after it."""

    new_images: int = Field(ge=0, description="Of the images, those planned by this run: new, changed or retried.")
    removed_images: int = Field(ge=0, description="Images that left the source since the run before.")
    known_images: int = Field(
        0, ge=0, description="Of the new images, those whose content was labelled before: no model looked at them."
    )
    moved_images: int = Field(
        0, ge=0, description="Images that have another key now; their labels and reviews are kept."
    )
    limit: int | None = Field(None, description="Images that were asked for, the first by key; None: all.")
    shards_processed: int = Field(ge=0, description="Processed by this run; the others were done.")
    workers: int = Field(0, ge=0, description="With runner ray: most workers that were ready at once.")
    workers_lost: list[str] = Field([], description="Workers that died or took too long: name and reason.")
    workers_retired: list[str] = Field([], description="Workers that were given up: name and reason.")
    policy: str = Field(description="Version of the policy that decided.")
    policy_basis: str = Field(description="On what basis it accepts, in words.")
    policy_expired: str = Field("", description="Why the active policy accepts nothing any more; empty: it holds.")
    accepts: bool = Field(description="Whether the policy can accept anything.")
    answers_carried: dict[str, int] = Field({}, description="Merged class -> answers of former classes that count now.")
    shard_errors: dict[str, str] = Field(description="Shard id -> why it could not be finished.")
    seconds: float = Field(ge=0, description="Wall-clock time of this run, from the start of the command.")
    seconds_of: dict[str, float] = Field(default_factory=dict, description="Part of the run -> its time; they sum up.")
    images_per_second: float = Field(ge=0, description="Of the images processed by this run.")
    export: ExportOutcome | None = Field(description="The data set, unless none was asked for.")

    def _workers(self) -> str:
        kinds = ((self.workers_lost, "lost"), (self.workers_retired, "given up"))
        return ", ".join([str(self.workers), *(f"{len(some)} {what}" for some, what in kinds if some)])

    def blocks(self) -> Iterator[Block]:
        """The figures of the run, its classes, why images failed, and where the output lies.

        First of all, whether there is anything for a trainer to learn from.
        """
        if self.done and not (self.accepted if self.export is None else self.export.usable):
            yield not_usable_yet(self.review)
        values = {
            "images": f"{self.images:,} ({self.new_images:,} new or changed, {self.removed_images:,} removed)",
            "done": count(self.done),
            "failed": count(self.failed),
            **({"pending": count(self.pending)} if self.pending else {}),
            "labels": count(self.labels),
            "accepted": count(self.accepted),
            "review": count(self.review),
            "shards": f"{self.shards:,} ({self.shards_processed:,} processed now)",
            **({"workers": self._workers()} if self.workers else {}),
            "time": _time(self.seconds, self.seconds_of),
            **({"speed": f"{self.images_per_second:.1f} images/s while labelling"} if self.shards_processed else {}),
            "policy": policy_with_basis(self.policy, self.policy_basis),
        }
        yield facts(f"run {self.run}", values)
        yield from self._kept()
        if self.classes:
            yield _class_table(self.classes)
        yield from _reasons(self.reasons, self.failed_images)
        yield from files_remarks(self.skipped, self.misnamed)
        yield from (
            f"{plural(number, 'answer')} about former classes count for {name} now"
            for name, number in self.answers_carried.items()
        )
        yield from _without_label(self.answers_without_label)
        yield from (f"{worker}; it was lost" for worker in self.workers_lost)
        yield from (f"{worker}; it was given up" for worker in self.workers_retired)
        yield from (f"shard {shard} could not be finished: {why}" for shard, why in sorted(self.shard_errors.items()))
        if self.outside:
            yield outside_text(self.outside)
        if self.policy_expired:
            yield (
                f"The policy has EXPIRED: {self.policy_expired}. Every label waits for review until you certify again: "
                "vouch plan-reviews CAMPAIGN tells what to review."
            )
        elif not self.accepts:
            yield (
                "Nothing was accepted, as nothing is certified yet and the campaign has no manual thresholds. "
                "vouch review CAMPAIGN asks what a threshold needs to be certified (vouch plan-reviews CAMPAIGN draws "
                "it for other tools); or set manual thresholds in routing.accept and run again (only the routing is "
                "done again)."
            )
        yield from bundled_models(self.bundled, self.unknown_classes)
        if self.export is not None:
            yield from self.export.places()
        yield f"workspace: {self.workspace}"

    def _kept(self) -> Iterator[str]:
        """What was taken over from earlier runs, and what is left for a later one."""
        if self.moved_images:
            yield f"{plural(self.moved_images, 'image')} moved, labels and reviews kept"
        if others := max(0, self.known_images - self.moved_images):
            what = "other image" if self.moved_images else "image"
            yield f"{plural(others, f'{what} has', f'{what}s have')} a content that was labelled before, labels kept"
        if self.limit is not None:
            yield (
                f"limited to the first {plural(self.limit, 'image')} of the source, by key; "
                "vouch run CAMPAIGN goes on with the rest"
            )


def _time(seconds: float, parts: Mapping[str, float]) -> str:
    """A time and its parts of a second or more, of which there may be none."""
    named = ", ".join(f"{name} {duration(part)}" for name, part in parts.items() if part >= 0.5)
    return f"{duration(seconds)}: {named}" if named else duration(seconds)


class Preview(Labelled):
    """A few images that were labelled for one picture; nothing of it is kept but the picture."""

    picture: str | None = Field(description="The picture; None where no image could be drawn.")
    images: int = Field(ge=0, description="Images labelled, those that failed included.")
    seed: int = Field(description="Seed by which they were drawn from the source.")
    failed: list[tuple[str, str, str]] = Field(description="Key, step and reason of images that failed.")
    policy: str = Field(description="What decided, in words.")
    remark: str = Field("", description="Why it is not what a run would decide by; empty: it is.")
    seconds: float = Field(ge=0, description="Wall-clock time.")

    def blocks(self) -> Iterator[Block]:
        """What was found in how many images, what would become of it, and where the picture is."""
        yield (
            f"{plural(self.images, 'image')} drawn at random with seed {self.seed}, {plural(self.labels, 'label')}: "
            f"{self.accepted:,} would be accepted, {self.review:,} would wait for review; {duration(self.seconds)}"
        )
        if self.classes:
            yield _class_table(self.classes)
        yield f"decided by: {policy_name(self.policy)}"
        if self.remark:
            yield self.remark
        yield from (f"failed: {key}: {step}: {reason}" for key, step, reason in self.failed[:MOST_REASONS])
        if not self.labels:
            yield "Nothing was found: try other prompts, models.detector.min_score, or other models."
        yield from bundled_models(self.bundled, self.unknown_classes)
        yield f"picture: {self.picture}" if self.picture else "no picture: no image could be read"


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

    def blocks(self) -> Iterator[Block]:
        """What the policy has changed, class by class, and what holds from now on."""
        if self.export is not None and not self.export.usable:
            yield not_usable_yet(self.export.undecided)
        yield f"run {self.run}: {self.changed:,} of {plural(self.labels, 'label')} decided otherwise now"
        rows = [
            (name, one.before.accepted, one.after.accepted, one.before.review, one.after.review)
            for name, one in self.classes.items()
        ]
        before, now = self.accepted_before, self.accepted
        rows.append(("all", before, now, self.labels - before, self.labels - now))
        names = ("accepted before", "accepted now", "review before", "review now")
        yield Table("", {"class": str, **dict.fromkeys(names, count)}, rows)
        yield f"active policy: {policy_with_basis(self.policy, self.policy_basis)}"
        yield f"before: {policy_name(self.policy_before)}"
        if self.pending:
            images = plural(self.pending, "image is", "images are")
            yield f"{images} not labelled yet; vouch run CAMPAIGN does the rest, by the same policy"
        if self.export is not None:
            yield from self.export.places()
        yield f"workspace: {self.workspace}"


def not_usable_yet(waiting: int, next_step: str = "", all_left_out: int = 0) -> str:
    """Say that the data set has nothing to learn from, and what comes next.

    Args:
        waiting: Labels that wait for review.
        next_step: What to do; empty: what follows from the rest.
        all_left_out: Images that are left out of it because of these.
    """
    if all_left_out:
        why = (
            f"each of {plural(all_left_out, 'image')} that have objects is left out, as a label in it waits for review"
        )
        step = "vouch review CAMPAIGN, and answer what it asks; or --undecided blank or drop"
    elif waiting:
        why = f"{plural(waiting, 'label')} {'waits' if waiting == 1 else 'wait'} for review, and none is accepted"
        step = "vouch review CAMPAIGN, and answer what it asks"
    else:
        why, step = "no object is in it", "give the classes other prompts, and vouch run CAMPAIGN again"
    return f"NOTHING IN THE DATA SET IS USABLE FOR A TRAINER YET: {why}. Next: {next_step or step}"


def bundled_models(kinds: Sequence[str], unknown: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Say what bundled models are good for, and which classes they do not know; nothing where none is used.

    `unknown` has these classes, and for each the thing that may be meant.
    """
    if not kinds:
        return
    named = ", ".join(kinds)
    yield f"bundled models ({named}): they know {len(DRAWN)} drawn things, no photographs: see vouch models list"
    if unknown:
        classes = [f"{name} (did you mean {near}?)" if near else name for name, near in unknown.items()]
        yield f"the bundled models do not know {some(classes, FEW_CLASSES)}; what they know: vouch models list"


def _class_table(classes: Mapping[str, ClassCounts]) -> Table:
    rows = [(name, one.accepted, one.review) for name, one in classes.items()]
    return Table("", {"class": str, "accepted": count, "review": count}, rows)


def _without_label(answers: Mapping[str, int]) -> Iterator[str]:
    """Say that people's answers fit no label any more: their class has gone, or prompts or models are others."""
    if total := sum(answers.values()):
        named = ", ".join(f"{name} {number:,}" for name, number in answers.items() if name)
        fit = "answer no longer fits" if total == 1 else "answers no longer fit"
        yield (
            f"{total:,} {fit} any label{f' ({named})' if named else ''}; the workspace keeps them, and a class that "
            "was renamed gets them back by was: with its former name"
        )


def _reasons(reasons: Mapping[str, int], named: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Why images failed, the most frequent reasons first, and the first of the images."""
    ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    for reason, images in ordered[:MOST_REASONS]:
        yield f"{plural(images, 'image')} failed: {reason}"
    if rest := sum(images for _, images in ordered[MOST_REASONS:]):
        yield f"{plural(rest, 'more image', 'more images')} failed, for other reasons"
    yield from (f"    {key}: {step}: {reason}" for key, step, reason in named)
    if sum(reasons.values()) > len(named):
        yield "vouch status CAMPAIGN --failed names every image that failed"
