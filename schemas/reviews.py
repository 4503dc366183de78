"""Defines review plans, their tasks and verdicts (the reviewers' decisions), as models and Arrow schemas."""

from collections.abc import Iterator
from typing import Final, Literal

import pyarrow as pa
from pydantic import Field

from vouch_labels.schemas.campaign import Gate, Strict
from vouch_labels.schemas.policy import Covered, LogMark
from vouch_labels.schemas.text import Block, Columns, Table, count, duration, pct, plural, share

MOST_DISPUTED: Final = 10
"""Disputed labels that are named."""

Purpose = Literal["fit", "certify", "audit", "plant", "doubtful", "image", "possible_miss"]
"""Why something is asked: to fit the calibrator; to certify; blind audit of new labels; a known-wrong label that
shows what reviewers miss; to decide a low-confidence label; to search an image exhaustively; to look for one class that
CLIP sees and no box shows."""

PURPOSES: Final[dict[Purpose, str]] = {
    "fit": "calibration set",
    "certify": "validation sample, to certify",
    "audit": "blind audit of new labels",
    "plant": "honeypots, known to be wrong",
    "doubtful": "low-confidence labels",
    "image": "images to be searched",
    "possible_miss": "classes that CLIP sees and no box shows",
}

LABEL_VERDICTS: Final = ("correct", "wrong_class", "bad_box", "not_an_object")
"""Answers about one label. A second box on an object is not_an_object: it is no further object."""
IMAGE_VERDICTS: Final = ("checked", "missed")
"""Answers about an image: all objects (of class_name, or of every class) are known now; one that no label shows."""

HONEYPOT_ACCEPTED: Final = 0
"""`stratum` of a honeypot made from a label with the score of an accepted one."""
HONEYPOT_ROUTED: Final = 1
"""`stratum` of a honeypot made from a label with the score of one that people get in any case."""

MOST_RLE_BYTES: Final = 1 << 20
"""Of the mask of one verdict. Runs of the columns next to each other differ little: a byte or two each."""

Stage = Literal["first", "certify", "audit", "queue"]
"""Labels to fit to; certification sample; blind audit of new labels; low-confidence labels."""

TASKS = pa.schema(
    [
        pa.field("place", pa.int32(), nullable=False),  # order in which to ask, from 0
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("label_id", pa.string()),  # null: the question is about the image; honeypots have an id of their own
        pa.field("key", pa.string(), nullable=False),  # of the image, relative to the source
        pa.field("class_name", pa.string()),  # null for an image: every class
        pa.field("x0", pa.float32()),  # xyxy, pixels of the EXIF-oriented original; null for an image
        pa.field("y0", pa.float32()),
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("p_correct", pa.float32()),  # null before there is a calibrator
        pa.field("stratum", pa.int32()),  # of audits and images: index into the plan's strata; of honeypots: below
        pa.field("inclusion", pa.float64()),  # probability with which it was to be drawn, (0, 1]; null if chosen
        pa.field("seconds", pa.float32(), nullable=False),  # expected
    ]
)
"""reviews/plans/<run>/<number>-tasks.parquet, in the order of `place`."""

VERDICTS = pa.schema(
    [
        pa.field("label_id", pa.string()),  # null: about the image
        pa.field("key", pa.string()),  # of the image; may be null where label_id is given
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("class_name", pa.string()),  # the right one; of checked: null for every class
        pa.field("x0", pa.float32()),  # box as it should be, xyxy, pixels of the EXIF-oriented original
        pa.field("y0", pa.float32()),
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("reviewer", pa.string(), nullable=False),
        pa.field("seconds", pa.float32()),
        pa.field("reviewed_at", pa.timestamp("us", tz="UTC")),
        pa.field("simulated", pa.bool_(), nullable=False),  # answered from ground truth by a program
        pa.field("rle_counts", pa.binary()),  # mask as it should be: compressed COCO RLE, its size is the image's
    ]
)
"""reviews/<name>.parquet: append-only; no file is ever changed. Files without any mask do not have its column."""


class GroupPlan(Strict):
    """A group of classes that will be certified together, declared before its labels are reviewed."""

    name: str = Field(description="Name for people.")
    classes: tuple[str, ...] = Field(min_length=1, description="Class names.")
    thresholds: tuple[float, ...] = Field(description="The threshold grid of p(correct), strict to loose.")
    region: float | None = Field(None, description="Least p(correct) of the labels drawn from; None: all of them.")
    power: float | None = Field(None, description="Predicted chance that the first threshold passes.")
    known_correct: int = Field(0, ge=0, description="Its labels outside the population that were called correct.")
    known_wrong: int = Field(0, ge=0, description="The same, called wrong.")
    labels: int = Field(0, ge=0, description="Its labels in the population, where it is tested after any answer too.")
    accepted: tuple[int, ...] = Field((), description="Of them, those at or above each threshold; then.")
    wrong: tuple[float, ...] = Field((), description="How many of these are wrong, by p(correct); then.")
    most_wrong: float = Field(0, ge=0, description="The same of all its labels that have a p(correct); then.")


class Stratum(Strict):
    """A part of what was drawn from."""

    name: str = Field(description="Name for people.")
    size: int = Field(ge=0, description="Labels, or images, in it.")
    drawn: int = Field(ge=0, description="Of them, drawn.")


class AuditPlan(Strict):
    """The new labels that a blind audit was drawn from."""

    policy: str = Field(description="Version of the policy that was certified first, and accepts them.")
    labels: int = Field(ge=0, description="How many it accepts.")
    mean_p_correct: float = Field(ge=0, le=1, description="Mean of their p(correct).")
    strata: tuple[Stratum, ...] = Field(description="Class and score.")


class ReviewPlan(Strict):
    """What one `vouch plan-reviews` asked for; written after its tasks, so a plan without it does not exist."""

    number: int = Field(ge=1, description="1, 2, 3 ... within the run.")
    run: str = Field(description="Name of the run.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")
    inputs: dict[str, str] = Field(description="What the labels depend on -> its fingerprint.")
    precision: float = Field(description="T that was asked for.")
    confidence: float = Field(description="1 - delta that was asked for.")
    gate: Gate = Field(description="What the guarantee is to be about.")
    seed: int = Field(ge=0, description="Seed of every draw.")
    fit_share: float = Field(0, ge=0, le=1, description="Share of images kept for fitting, in plans of before 2026-12.")
    calibrator: str | None = Field(None, description="Fingerprint of the calibrator that ordered certification tasks.")
    groups: tuple[GroupPlan, ...] = Field((), description="For certification tasks; empty without any.")
    population: Covered | None = Field(
        None, description="The labels that a validation sample or an audit was drawn from, and stands for."
    )
    round: int = Field(
        0, ge=0, description="Which declaration of groups the certification tasks belong to, 1 for the first; 0: none."
    )
    any_time_delta: float = Field(
        0, ge=0, lt=1, description="What the test after any answer may spend, as it stood then; 0: there is none."
    )
    missed: float = Field(0, ge=0, lt=1, description="Share of wrong labels that reviewers were assumed to miss.")
    audit: AuditPlan | None = Field(None, description="For audits.")
    image_strata: tuple[Stratum, ...] = Field((), description="For image checks.")
    counts: dict[Purpose, int] = Field(description="Purpose -> tasks.")
    seconds: float = Field(ge=0, description="Expected time of all tasks.")
    tasks_sha256: str = Field(description="Hex of SHA-256 over the bytes of the table of tasks.")
    log: LogMark | None = Field(None, description="The newest entry of the workspace's log when it was written.")


class Planned(Strict):
    """A review plan as written."""

    stage: Stage = Field(description="What was drawn.")
    plan: ReviewPlan = Field(description="The plan.")
    open: int = Field(ge=0, description="Its tasks that have no answer yet; earlier verdicts may answer some.")
    simulated: int = Field(0, ge=0, description="Its tasks about labels that a simulated reviewer has answered.")
    earlier_open: int = Field(0, ge=0, description="Tasks of earlier plans that still wait for an answer.")
    words: tuple[str, ...] = Field(description="What was drawn and why.")
    next: tuple[str, ...] = Field(description="Commands that come next.")

    def blocks(self) -> Iterator[Block]:
        """What was drawn and why, how long it takes, and what comes next."""
        if self.earlier_open:
            tasks = plural(
                self.earlier_open, "task of an earlier plan still waits", "tasks of earlier plans still wait"
            )
            yield f"{tasks} for an answer"
        yield f"review plan {self.plan.number} of run {self.plan.run}"
        yield from (f"- {line}" for line in self.words)
        rows = [(PURPOSES[purpose], tasks) for purpose, tasks in self.plan.counts.items()]
        yield Table("", {"why": str, "tasks": count}, rows)
        yield self.to_answer()
        yield from (f"next {number}: {command}" for number, command in enumerate(self.next, 1))

    def to_answer(self) -> str:
        """How much of the plan is to be answered, and who has answered the rest."""
        total = sum(self.plan.counts.values())
        answered = total - self.open
        simulated = min(self.simulated, answered)
        if not self.open:
            by = f" ({simulated:,} by a simulated reviewer)" if simulated else ""
            return f"0 to be answered: earlier verdicts answer every task of this plan already{by}"
        time = f"to be answered, about {duration(self.plan.seconds)} at the usual pace"
        if not answered:
            return f"{self.open:,} {time}"
        verb = "was" if answered == 1 else "were"
        text = f"{self.open:,} of {total:,} {time}; {answered:,} {verb} answered"
        if simulated == answered:
            return f"{text} by a simulated reviewer already"
        by = f", {simulated:,} of them by a simulated reviewer" if simulated else ""
        return f"{text} already{by}"


class ImportOutcome(Strict):
    """How the rows of one file ended; they sum to its rows."""

    file: str = Field(description="The file.")
    rows: int = Field(ge=0, description="Rows in it.")
    imported: int = Field(ge=0, description="Verdicts that are new.")
    known: int = Field(ge=0, description="Verdicts that the workspace had already, or the file had twice.")
    unanswered: int = Field(ge=0, description="Rows without a verdict.")
    refused: int = Field(ge=0, description="Rows that are no verdicts; left out because that was asked for.")
    refused_file: str | None = Field(None, description="Where the refused rows stand, with reasons.")
    unknown_labels: int = Field(
        ge=0, description="Of the new and known verdicts, those on labels that neither the run nor a plan has; kept."
    )
    unknown_images: int = Field(ge=0, description="The same of verdicts on images; kept.")

    def blocks(self) -> Iterator[Block]:
        """What became of the rows."""
        parts = [f"{self.imported:,} of {plural(self.rows, 'row')} imported"]
        parts += [plural(self.known, "was there already", "were there already")] if self.known else []
        parts += [f"{self.unanswered:,} without a verdict"] if self.unanswered else []
        yield f"{self.file}: {', '.join(parts)}"
        if self.refused:
            yield f"    {plural(self.refused, 'invalid row')} left out, with reasons: {self.refused_file}"
        if self.unknown_labels:
            yield (
                f"    on labels that this run does not have (other models, or another run), kept, and counting for "
                f"nothing here: {self.unknown_labels:,}"
            )
        if self.unknown_images:
            yield f"    on images that this run does not have, and kept: {self.unknown_images:,}"


class ReviewerFigures(Strict):
    """The verdicts of one reviewer that hold."""

    labels: int = Field(ge=0, description="Labels with a verdict.")
    correct: int = Field(ge=0, description="Of them, called correct.")
    images: int = Field(ge=0, description="Verdicts about images: checked, or an object missed.")
    seconds: float = Field(ge=0, description="Time of all, where it was given.")


class SecondReadings(Strict):
    """What labels that two people have read, neither seeing the other's answer, tell of what reviewers miss."""

    labels: int = Field(ge=0, description="Labels that two people or more have read.")
    wrong: int = Field(ge=0, description="Of them, found wrong by one of the first two, and not right after all.")
    missed: int = Field(ge=0, description="Of these wrong ones, called correct by the other.")
    confidence: float = Field(ge=0, le=1, description="Of the interval from low to high.")
    share: float | None = Field(None, description="Wrong labels that a reviewer misses; None where none was found.")
    low: float | None = Field(None, description="Lower confidence bound of the share.")
    high: float | None = Field(None, description="Upper confidence bound of the share.")

    def to_line(self) -> str:
        """The share and its bounds, and what they rest on."""
        read = f"two people read {plural(self.labels, 'label')}"
        if self.share is None or self.low is None or self.high is None:
            return f"{read} and found none of them wrong, which does not show what they miss"
        return (
            f"{read}, {self.wrong:,} of them wrong: one of the two missed {self.missed:,}; about {pct(self.share)} of "
            f"the wrong ones are missed ({pct(self.low)} to {pct(self.high)}, {pct(self.confidence)} confidence), if "
            "the two are independent and equally careful"
        )


class VerdictFigures(Strict):
    """What the verdicts of a workspace say of one run."""

    run: str = Field(description="Name of the run.")
    verdicts: int = Field(ge=0, description="Rows, those that later ones replace included.")
    labels: int = Field(ge=0, description="Labels of the run that have an answer.")
    answers: dict[str, int] = Field(description="Answer, disputed included -> labels of the run.")
    classes: dict[str, dict[str, int]] = Field(description="Class of the label -> answer -> labels of the run.")
    reviewers: dict[str, ReviewerFigures] = Field(description="Reviewer -> figures, over all labels.")
    doubly_reviewed: int = Field(ge=0, description="Labels with verdicts of two reviewers or more.")
    agreement: float | None = Field(None, description="Of them, the share on which verdicts and classes are equal.")
    second_readings: SecondReadings | None = Field(
        None, description="What reviewers miss, by the run's labels that two have read; None without any."
    )
    disputed: list[str] = Field(description="Ids of the run's labels on which reviewers disagree, a hundred at most.")
    images_checked: int = Field(ge=0, description="Images that were searched for every class.")
    missed_objects: int = Field(ge=0, description="Objects that no label showed.")
    planted: int = Field(ge=0, description="Answers on labels that a plan made up to test reviewers.")
    unknown_labels: int = Field(ge=0, description="Answers on labels that neither the run nor a plan has.")
    simulated: int = Field(ge=0, description="Rows of simulated reviewers.")
    seconds: float = Field(ge=0, description="Time of all verdicts, where it was given.")

    def blocks(self) -> Iterator[Block]:
        """The verdicts by class and by reviewer, and which do not count."""
        if not self.verdicts:
            yield "there are no verdicts yet; vouch verdicts CAMPAIGN FILE imports some"
            return
        yield (
            f"run {self.run}: {plural(self.labels, 'label')} reviewed, {plural(self.images_checked, 'image')} checked, "
            f"{plural(self.missed_objects, 'missed object')}; {plural(self.verdicts, 'verdict')}, "
            f"{duration(self.seconds)}"
        )
        names = [name for name in (*LABEL_VERDICTS, "disputed") if name in self.answers]
        if names:
            rows = [(name, *(one.get(answer, 0) for answer in names)) for name, one in self.classes.items() if one]
            yield Table("", {"class": str, **{name.replace("_", " "): count for name in names}}, rows)
        columns: Columns = {"reviewer": str, "labels": count, "correct": share, "about images": count, "time": duration}
        people = [
            (name, one.labels, one.correct / one.labels if one.labels else None, one.images, one.seconds)
            for name, one in self.reviewers.items()
        ]
        yield Table("", columns, people)
        if self.agreement is not None:
            yield f"{plural(self.doubly_reviewed, 'label')} reviewed by several: {pct(self.agreement)} agreement"
        if self.second_readings is not None:
            yield self.second_readings.to_line()
        if disputed := self.answers.get("disputed", 0):
            named = ", ".join(self.disputed[:MOST_DISPUTED]) + (" ..." if disputed > MOST_DISPUTED else "")
            yield f"{plural(disputed, 'label')} disputed, which wait for review again: {named}"
        if self.planted:
            yield f"{plural(self.planted, 'answer is', 'answers are')} on honeypots, which test reviewers"
        if self.unknown_labels:
            yield f"{plural(self.unknown_labels, 'answer is', 'answers are')} on labels that this run does not have"
        if self.simulated:
            yield f"{plural(self.simulated, 'verdict')} came from a simulated reviewer"
