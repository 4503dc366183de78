"""What `vouch report` says of a run: every figure of the page, without its pictures' pixels."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import AliasChoices, Field, model_validator

from vouch_labels.schemas.campaign import Gate, Strict
from vouch_labels.schemas.evaluation import ContractTruth, Quality, Reliability, quality_table
from vouch_labels.schemas.policy import Covered
from vouch_labels.schemas.text import Block, Columns, Table, count, day, files_remarks, least, most, pct, plural, when

PolicyStatus = Literal["empty", "nothing_accepted", "user_thresholds", "certified", "simulated", "expired"]
"""What the acceptance rests on; simulated: a certificate from a simulated reviewer, which certifies nothing."""


class Interval(Strict):
    """An estimated share with its interval."""

    value: float | None = Field(None, description="The estimate; None where the sample gives none.")
    low: float = Field(0, ge=0, le=1)
    high: float = Field(1, ge=0, le=1)
    confidence: float = Field(gt=0, lt=1, description="Chance with which such an interval holds the truth.")

    def text(self) -> str:
        """The estimate with its interval."""
        return "answers are missing" if self.value is None else f"{pct(self.value)} ({self.ends()})"

    def ends(self) -> str:
        """The interval, never narrower than it is."""
        return f"{least(self.low)} to {most(self.high)}"


class Accepted(Strict):
    """How many labels of a set were accepted."""

    labels: int = Field(0, ge=0)
    accepted: int = Field(0, ge=0)
    answered: int = Field(0, ge=0, description="Of the accepted, those with a verdict.")

    @property
    def share(self) -> float | None:
        """Share accepted; None without labels."""
        return self.accepted / self.labels if self.labels else None


class Images(Strict):
    """How the images ended; done + failed + pending = total."""

    total: int = Field(ge=0)
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    pending: int = Field(ge=0)
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so, the most frequent first.")
    skipped: dict[str, int] = Field({}, description="Kind -> files of the source that are no images to label.")
    misnamed: int = Field(0, ge=0, description="Of the images done, those whose names end as another format's do.")

    @property
    def remarks(self) -> list[str]:
        """What the source holds beside images, and images whose names claim another format."""
        return list(files_remarks(self.skipped, self.misnamed))

    def table(self, shown: int) -> Table:
        """Why images failed, the most frequent reasons first."""
        rows = list(self.reasons.items())[:shown]
        return Table("Images that failed, by step and reason", {"reason": str, "images": count}, rows)


class GroupReport(Strict):
    """A group of classes that share a rule, and what reviewed samples say of it."""

    name: str
    classes: tuple[str, ...]
    rule: str = Field(description="In words; empty where nothing of the group is accepted.")
    p_correct: float | None = Field(None, description="Least p(correct) of a certified rule.")
    labels: int | None = Field(None, description="Labels of the population; None: not certified.")
    accepted: int | None = Field(None, description="Of them, accepted.")
    reviewed: int | None = Field(None, description="Reviewed labels that stand for the guarantee, n.")
    errors: int | None = Field(None, description="Wrong among them, k.")
    limit: float | None = Field(None, description="Share of wrong labels tested: 1 - T, less what reviewers miss.")
    bound: float | None = Field(None, description="Upper bound of the share of wrong labels.")
    delta: float | None = Field(None, description="Level of the test.")
    accepted_precision: Interval | None = Field(None, description="A, with its lower bound.")
    delivered_precision: Interval | None = Field(None, description="B, with its lower bound.")
    refusal: str = Field("", description="Why nothing is certified.")
    more_reviews: int | None = Field(None, description="About how many more reviews would certify it.")


class PolicyReport(Strict):
    """The policy that decided."""

    version: str
    standing: PolicyStatus
    precision: float = Field(description="T: guaranteed, or asked for.")
    confidence: float = Field(description="1 - delta: guaranteed, or asked for.")
    gate: Gate
    look: int | None = Field(None, description="Which test of certification labels it came from.")
    created: str | None = None
    fit_labels: int | None = Field(None, description="Reviewed labels that its calibrator was fitted to.")
    planted: int = Field(0, description="Known-wrong labels shown to reviewers.")
    missed: int = Field(0, description="Of them, called correct.")
    assumed_missed: float = Field(0, description="Share of wrong labels that they are assumed to miss at most.")
    covers: tuple[Covered, ...] = Field((), description="The labels that the guarantee covers.")
    groups: tuple[GroupReport, ...]


class AuditReport(Strict):
    """A blind audit of labels that were new."""

    plan: int = Field(description="Number of the review plan.")
    created: str
    policy: str = Field(description="Version of the policy whose labels were audited.")
    labels: int = Field(ge=0, description="Labels that the policy accepts among those that it was drawn from.")
    asked: int = Field(ge=0)
    answered: int = Field(ge=0)
    wrong: int = Field(ge=0)
    precision: Interval | None = Field(None, description="Of the accepted labels; None while answers are missing.")


def audit_table(audits: Sequence[AuditReport]) -> Table:
    """Lay out blind audits."""
    columns: Columns = {"plan": str, "of": day, "labels": count, "asked": count, "answered": count, "wrong": count}
    columns["precision of accepted labels"] = Interval.text
    rows = [(one.plan, one.created, one.labels, one.asked, one.answered, one.wrong, one.precision) for one in audits]
    title = "Audits, the latest first; each drawn from the labels that were new then"
    return Table(title, columns, rows)


class ExpiryReport(Strict):
    """The bets that new labels are worse than the guarantee; a policy of before 2026-12 covers them, and expires."""

    batches: int = Field(ge=0, description="Audits that it has seen.")
    wealth: float = Field(description="Of the bets against the guarantee.")
    limit: float = Field(description="Wealth at which that is certain enough, 1 / delta.")
    expired: bool


class RecallInterval(Interval):
    """An estimated recall with its interval, and what it rests on."""

    most_missed: int | None = Field(
        None,
        ge=0,
        description="The low end holds if no image misses more objects; None in reports of earlier versions.",
    )
    images_with_misses: float | None = Field(
        None, ge=0, le=1, description="At most this share of the images misses an object; None as above."
    )

    def text(self) -> str:
        """The interval first, as nothing vouches for the estimate alone."""
        if self.value is None:
            return "answers are missing"
        return f"at least {least(self.low)} and at most {most(self.high)}, by estimate {pct(self.value)}"


class RecallPart(Strict):
    """A stratum of images."""

    name: str
    images: int = Field(ge=0)
    searched: int = Field(ge=0, description="Of the drawn images, those that were finished.")
    objects: int = Field(ge=0, description="In the finished images.")
    accepted: int = Field(ge=0, description="Of them, found by accepted labels.")
    delivered: int = Field(ge=0, description="Of them, found by any label, once people have decided all.")


class RecallReport(Strict):
    """The share of objects that labels show, from images that people searched."""

    accepted: RecallInterval | None = Field(None, description="Found by accepted labels; None: not known.")
    delivered: RecallInterval | None = Field(None, description="Found by any label, once people have decided all.")
    parts: tuple[RecallPart, ...] = ()
    undecided: int = Field(0, ge=0, description="Searched images that have labels still to be decided.")
    passed_over: int = Field(0, ge=0, description="Drawn images that were passed over while later ones were searched.")
    simulated: bool = Field(False, description="A simulated reviewer searched some of them.")
    advice: str = Field("", description="What to do to get it, where it is missing.")

    def basis(self) -> str:
        """How many images it rests on, and how those count that were not finished."""
        who = "a simulated reviewer" if self.simulated else "people"
        text = f"from {plural(sum(one.searched for one in self.parts), 'image')} that {who} searched"
        left = {"with undecided labels": self.undecided, "passed over": self.passed_over}
        said = " and ".join(f"{count:,} {what}" for what, count in left.items() if count)
        return f"{text}; {said} counted at their worst" if said else text

    def narrower(self) -> str:
        """What would narrow the interval, if images were left unfinished."""
        decide = f"decide the labels of {plural(self.undecided, 'searched image')}" if self.undecided else ""
        search = f"search {plural(self.passed_over, 'image')} passed over" if self.passed_over else ""
        return " and ".join(one for one in (decide, search) if one)

    def table(self) -> Table:
        """What the searched images showed."""
        names = ("in the run", "searched", "objects there", "found, accepted", "found, all labels")
        rows = [(one.name, one.images, one.searched, one.objects, one.accepted, one.delivered) for one in self.parts]
        title = "Images drawn at random and searched for every object"
        return Table(title, {"images with": str, **dict.fromkeys(names, count)}, rows)


class SignalDrift(Strict):
    """A signal now, against the batch that was certified."""

    signal: str
    distance: float = Field(description="Largest difference of the distribution functions.")
    drifted: bool
    before: tuple[float, ...] = Field(description="101 percentiles of the certified batch.")
    now: tuple[float, ...] = Field(description="101 percentiles of this run; empty without values.")


class DriftReport(Strict):
    """Whether scores have moved since the policy was certified."""

    signals: tuple[SignalDrift, ...] = Field((), description="The largest distance first.")
    audit_factor: float = Field(1, description="How many times more to audit.")
    missing: str = Field("", description="Why there is nothing to compare.")


class Histogram(Strict):
    """How a score is spread over the labels."""

    signal: str
    edges: tuple[float, ...] = Field(description="One more than bins.")
    accepted: tuple[int, ...]
    review: tuple[int, ...]
    thresholds: tuple[float, ...] = Field(description="From which labels are accepted, ascending, each once.")
    missing: int = Field(0, ge=0, description="Labels without a value.")


class ReviewedReliability(Strict):
    """Stated p(correct) against verdicts."""

    found: Reliability | None = None
    brier: float | None = None
    labels: int = 0
    missing: str = Field("", description="Why there is none.")


class ClassReport(Strict):
    """One class."""

    name: str
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    reviewed: int = Field(0, ge=0, description="Drawn and answered among its accepted labels.")
    wrong: int = Field(0, ge=0, description="Of them, wrong.")
    precision: float | None = Field(None, description="Of its accepted labels, shrunken to the mean; not certified.")


class Verdicts(Strict):
    """What people have answered."""

    labels: int = Field(0, ge=0, description="Labels of this run with a verdict.")
    answers: dict[str, int] = Field({}, description="Answer -> labels.")
    images: int = Field(0, ge=0, description="Images searched for every object.")
    missed: int = Field(0, ge=0, description="Objects named that no label shows.")
    reviewers: int = Field(0, ge=0, description="How many people; simulated ones are not counted.")
    simulated: int = Field(0, ge=0, description="Labels whose verdict came from a simulated reviewer.")
    foreign: int = Field(0, ge=0, description="Verdicts on labels that this run does not have.")


class TimeReport(Strict):
    """People's time; seconds."""

    spent: float = Field(0, ge=0, description="On verdicts about this run.")
    simulated: bool = Field(False, description="Part of it is a simulated reviewer's, which nobody spent.")
    untimed: int = Field(0, ge=0, description="Verdicts without a time.")
    verify_s: float = Field(gt=0, description="Assumption: time to verify one box.")
    draw_s: float = Field(gt=0, description="Assumption: time to draw one box by hand.")
    saved: float = Field(0, description="unseen x verify_s.")
    unseen: int = Field(0, ge=0, description="Accepted labels without a verdict: looks that nobody had to take.")
    waiting: float = Field(0, ge=0, description="Labels that wait for an answer x verify_s.")
    delivered: int = Field(0, ge=0, description="Accepted labels and those that people called correct.")
    per_box: float | None = Field(None, description="spent / delivered.")


class Picture(Strict):
    """A label that is shown."""

    kind: Literal["accepted", "routed", "wrong"]
    label_id: str
    key: str
    class_name: str
    box: tuple[float, float, float, float] = Field(description="xyxy, pixels of the EXIF-oriented original.")
    accepted: bool
    p_correct: float | None = None
    detector_score: float | None = None
    reason: str = Field(description="Of the decision, as stored.")
    answer: str = Field("", description="Verdict, or what ground truth says; empty if none.")


class TruthReport(Strict):
    """The labels against ground truth."""

    file: str
    images: int = Field(ge=0)
    iou_threshold: float
    accepted: Quality
    everything: Quality
    contract: ContractTruth | None = None
    remarks: tuple[str, ...] = Field((), description="What of the truth was left out, or looks wrong, a line each.")

    def blocks(self) -> Iterator[Block]:
        """What was left out, how right the labels are, and whether a guarantee held."""
        yield from self.remarks
        sets = {"accepted": self.accepted, "accepted + review": self.everything}
        yield quality_table("Labels against ground truth", sets)
        if self.contract is not None:
            yield from self.contract.blocks()


class Change(Strict):
    """A figure that differs from the last report."""

    name: str
    before: str
    now: str
    direction: Literal["up", "down", "other"]
    words: str = Field("", description="By how much.")


class Changes(Strict):
    """What changed since the last report."""

    since: str | None = Field(None, description="When that was made; None: this is the first.")
    number: int | None = None
    changes: tuple[Change, ...] = ()

    def table(self) -> Table:
        """The figures, before and now."""
        arrow = {"up": "↑ ", "down": "↓ ", "other": "changed"}
        rows = [(one.name, one.before, one.now, arrow[one.direction] + one.words) for one in self.changes]
        since = f"Since report {self.number} of {when(self.since or '')}"
        return Table(since, {"": str, "before": str, "now": str, "change": str}, rows)


class Provenance(Strict):
    """How the labels and this report were made."""

    vouch: str = Field(description="Version.")
    packages: dict[str, str] = Field(description="Package -> version.")
    fingerprint: str | None = Field(None, description="Of the settings that made the labels.")
    inputs: dict[str, str] = Field({}, description="What labels depend on -> its fingerprint.")
    models: dict[str, str] = Field(description="Step -> checkpoint.")
    settings: dict[str, str] = Field(description="Other settings that matter, in words.")


class Report(Strict):
    """A run in figures."""

    run: str
    workspace: str
    source: str
    number: int = Field(1, ge=1, description="Of this report within the run.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")
    images: Images
    automation: Accepted = Field(description="All labels.")
    covered: Accepted | None = Field(
        None,
        validation_alias=AliasChoices("covered", "certify_side"),
        description="Labels that the guarantee covers; None: no guarantee.",
    )
    outside: int | None = Field(None, ge=0, description="Labels that it does not cover and that nobody has looked at.")
    guarantee: str = Field(validation_alias=AliasChoices("guarantee", "promise"), description="In one sentence.")
    policy: PolicyReport
    audits: tuple[AuditReport, ...] = Field((), description="The latest first.")
    expiry: ExpiryReport | None = None
    recall: RecallReport
    drift: DriftReport
    reliability: ReviewedReliability
    histogram: Histogram | None = None
    classes: tuple[ClassReport, ...] = Field((), description="The most labels first.")
    pictures: tuple[Picture, ...] = ()
    verdicts: Verdicts
    time: TimeReport
    truth: TruthReport | None = None
    changes: Changes = Changes()
    provenance: Provenance
    bundled: tuple[str, ...] = Field((), description="Models of the campaign that are bundled: they know drawn things.")

    @model_validator(mode="before")
    @classmethod
    def _of_before_2026_12(cls, values: object) -> object:
        """Take a record with the labels of images that were kept for fitting, which is done no more."""
        return {name: one for name, one in values.items() if name != "fit_side"} if isinstance(values, dict) else values
