"""Turns what review plans ask into items, each question once, in order, with a reason from the label's signals.

The reasons follow the same rule for every label, whatever it is asked for.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.queue import Box, Kind
from vouch_labels.schemas.reviews import Purpose, ReviewPlan
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.certify.questions import honeypot_id
from vouch_labels.tasks.labels.read import Accepts
from vouch_labels.tasks.labels.scan import THREADS, Shard
from vouch_labels.tasks.reviews.open_tasks import open_tasks
from vouch_labels.tasks.reviews.resolve import Answers, ImageAnswers
from vouch_labels.tasks.store.store import map_ordered

Wanted = Callable[[str, Purpose], int]
"""Item and its purpose -> how many people are asked."""
READ_TWICE: Final[frozenset[Purpose]] = frozenset({"fit", "certify", "audit"})
"""Purposes of which a part is read by a second person: what reviewers miss there, certificates rest on."""
PLAN_PLACES: Final = 10**9
"""Places of one plan: earlier plans go first."""

_COLUMNS: Final = (
    "label_id", "key", "class_name", "runner_up", "detector_score", "detector_margin", "relative_area", "crowding",
    "sam_iou", "mask_stability", "mask_box_iou", "clip_probability", "clip_margin", "clip_other",
    "clip_other_probability",
)  # fmt: skip

MOST: Final = 2
"""Reasons that are named."""
UNSURE_SCORE: Final = 0.5
"""Below this the detector counts as unsure."""
CLOSE: Final = 0.15
"""Within this of another class, a class counts as hard to distinguish from it."""
LOOSE_MASK: Final = 0.7
"""Below this IoU of the box and the mask's own box, the mask does not fill the box."""
UNSURE_MASK: Final = 0.8
"""Below this IoU as SAM predicts it, the mask counts as unsure; and below this IoU of the mask cut higher and lower."""
CROWDED: Final = 0.5
"""Above this IoU with another label, both may show one object."""
TINY: Final = 0.0005
"""Below this share of the image, an object is hard to see."""

Signals = Mapping[str, Any]
"""Columns of the detect, segment and score tables of one label; null or NaN where missing."""


class Task(NamedTuple):
    """One question; a tuple, since there are many."""

    item: str
    """Id of the item."""
    place: int
    """Order in which to ask, over all plans."""
    plan: int
    """Number of the plan."""
    purpose: Purpose
    """Why it is asked."""
    kind: Kind
    """What people see."""
    key: str
    """Of the image."""
    class_name: str | None
    """The label's, or the one to search for; None: every class."""
    label_id: str | None
    """None: the question is about the image."""
    box: Box | None
    """Of the label."""
    seconds: float
    """Expected."""


@dataclass(frozen=True)
class Asked:
    """The questions of all plans that are about the labels as they are."""

    items: frozenset[str]
    """Ids of all of them, answered or not."""
    open: dict[str, Task]
    """Id -> question without an answer, in order."""
    unknown: Counter[str]
    """Class that the campaign does not have any more -> questions about it, which are in neither of the others."""


def asked_by(
    plans: Sequence[tuple[ReviewPlan, pa.Table]],
    answers: Answers,
    images: ImageAnswers,
    accepts: Accepts,
    classes: Collection[str],
) -> Asked:
    """Gather the questions of plans, which come in the order of their numbers."""
    known = pa.array(list(classes), pa.string())
    every: set[str] = set()
    found: dict[str, Task] = {}
    unknown: dict[str, str] = {}
    for plan, tasks in plans:
        of_campaign = pc.or_(tasks["class_name"].is_null(), pc.is_in(tasks["class_name"], value_set=known))
        odd = tasks.filter(pc.invert(of_campaign))
        unknown.update(zip(_ids(odd).to_pylist(), odd["class_name"].to_pylist(), strict=True))
        ours = tasks.filter(of_campaign)
        every.update(_ids(ours).to_pylist())
        waiting = open_tasks(ours, answers, images, accepts)
        for item, row in zip(_ids(waiting).to_pylist(), waiting.to_pylist(), strict=True):
            found.setdefault(item, _task(item, row, plan.number))
    return Asked(frozenset(every), found, Counter(unknown.values()))


def reviews_wanted(item: str, purpose: Purpose, seed: int, share: float) -> int:
    """Compute how many people are asked: two for a share of the labels, by a hash: whatever anybody has answered."""
    digest = hashlib.sha256(f"second\n{seed}\n{item}".encode()).digest()
    # 53 bits, so that the division is exact and the quotient stays below 1.
    return 2 if purpose in READ_TWICE and (int.from_bytes(digest[:8]) >> 11) / 2**53 < share else 1


def _ids(tasks: pa.Table) -> pa.ChunkedArray:
    of_image = pc.binary_join_element_wise(tasks["key"], tasks["class_name"].fill_null(""), "\t")
    return pc.if_else(tasks["label_id"].is_null(), of_image, tasks["label_id"])


def _task(item: str, row: dict[str, Any], plan: int) -> Task:
    about_label = row["label_id"] is not None
    kind: Kind = "label" if about_label else "possible_miss" if row["purpose"] == "possible_miss" else "image"
    x0, y0, x1, y1 = (row[side] for side in BOX)
    return Task(
        item=item,
        place=plan * PLAN_PLACES + row["place"],
        plan=plan,
        purpose=row["purpose"],
        kind=kind,
        key=row["key"],
        class_name=row["class_name"],
        label_id=row["label_id"],
        box=(x0, y0, x1, y1) if about_label else None,
        seconds=row["seconds"],
    )


@dataclass
class QuestionDetails:
    """What items show beside the question."""

    reasons: dict[str, str] = field(default_factory=dict)
    """Id of the item -> why it is worth a look, from the signals; items without a reason are left out."""
    sources: dict[str, str] = field(default_factory=dict)
    """Id of a honeypot -> id of the label that it was made from."""
    inputs: str = ""
    """Names what the labels were made by, see review_ui.queue.fill."""


def read_reasons(shards: Iterable[Shard], tasks: Iterable[Task], run: str, seed: int) -> QuestionDetails:
    """Read the reasons of questions from the signals, a shard at a time.

    A honeypot has the reason of the label that it was made from, with its shown class in the place of the one named: so
    it reads as a label of the shown class would that the models take for the other.

    Raises:
        StoreError: A table is missing or damaged.
    """
    wanted = _Wanted(list(tasks), run, seed)
    details = QuestionDetails()
    if wanted.tasks:
        for labels, presence in map_ordered(wanted.read, shards, THREADS):
            for row in labels.to_pylist():
                wanted.add_reasons(row, details)
            for row in () if presence is None else presence.to_pylist():
                if (item := f"{row['key']}\t{row['class_name']}") in wanted.pairs:
                    details.reasons[item] = format_presence(row["class_name"], row["clip_presence"])
    return details


class _Wanted:
    """Which rows of the tables matter."""

    def __init__(self, tasks: list[Task], run: str, seed: int) -> None:
        self.tasks, self.run, self.seed = tasks, run, seed
        self.honeypots: dict[str, list[Task]] = {}
        for task in tasks:
            if task.purpose == "plant":
                self.honeypots.setdefault(task.key, []).append(task)
        own = [task.label_id for task in tasks if task.label_id is not None and task.purpose != "plant"]
        self.label_ids = frozenset(own)
        self.labels = {"label_id": pa.array(own, pa.string()), "key": pa.array(list(self.honeypots), pa.string())}
        possible_misses = [task for task in tasks if task.kind == "possible_miss"]
        self.pairs = frozenset(task.item for task in possible_misses)
        self.presence_keys = pa.array(list({task.key for task in possible_misses}), pa.string())

    def read(self, shard: Shard) -> tuple[pa.Table, pa.Table | None]:
        """Read the rows of a shard that matter: of labels, and of what CLIP sees in images."""
        presence = shard.presence({"key": self.presence_keys}) if len(self.presence_keys) else None
        return shard.labels(_COLUMNS, self.labels), presence

    def add_reasons(self, row: Mapping[str, Any], details: QuestionDetails) -> None:
        """Add the reasons of a label that is asked about, and of the honeypots made from it."""
        label_id, class_name = row["label_id"], row["class_name"]
        if label_id in self.label_ids:
            details.reasons[label_id] = format_reasons(row)
        for task in self.honeypots.get(row["key"], ()):
            # A plan whose writing was cut short leaves a gap in the numbers, not in the count that the id is made with.
            if any(honeypot_id(self.run, self.seed, plans, label_id) == task.item for plans in range(task.plan)):
                details.sources[task.item] = label_id
                details.reasons[task.item] = format_reasons(row, {task.class_name or "": class_name})


class Reason(NamedTuple):
    """Why a signal makes a label worth a look."""

    weight: float
    """0: none; 1: as strong as the signal can be."""
    text: str


Rule = Callable[[Signals], Reason | None]


def format_reasons(signals: Signals, renamed: Mapping[str, str] | None = None) -> str:
    """Format the one or two strongest reasons to look at a label; how sure the models are, where none is strong.

    Nothing but signals goes in, so the text cannot reveal what was decided, nor why the label is asked about. `renamed`
    maps a class to the one to name in its place.
    """
    shown = dict(signals)
    for name in ("runner_up", "clip_other"):
        shown[name] = (renamed or {}).get(shown.get(name) or "", shown.get(name))
    reasons = [reason for rule in _RULES if (reason := rule(shown)) is not None and reason.weight > 0]
    # A stable sort: of equal weights the first rule goes first.
    strongest = sorted(reasons, key=lambda reason: -reason.weight)[:MOST]
    if strongest:
        return "; ".join(reason.text for reason in strongest)
    sure = {"detector": _number(shown, "detector_score"), "CLIP": _number(shown, "clip_probability")}
    scores = [f"{who} {value:.2f}" for who, value in sure.items() if value is not None]
    return f"the models agree: {', '.join(scores)}" if scores else ""


def format_presence(class_name: str, presence: float) -> str:
    """Format why one class is searched for in an image."""
    return f"CLIP sees {class_name}: {presence:.2f}"


def _clip_prefers(signals: Signals) -> Reason | None:
    margin, other = _number(signals, "clip_margin"), signals.get("clip_other")
    mine, theirs = _number(signals, "clip_probability"), _number(signals, "clip_other_probability")
    if margin is None or mine is None or theirs is None or not other:
        return None
    if margin < 0:
        return Reason(0.5 - margin / 2, f"CLIP prefers {other}: {theirs:.2f} against {mine:.2f}")
    return Reason((CLOSE - margin) / CLOSE / 2, f"CLIP hardly tells it from {other}: {mine:.2f} against {theirs:.2f}")


def _detector_torn(signals: Signals) -> Reason | None:
    margin, other = _number(signals, "detector_margin"), signals.get("runner_up")
    if margin is None or not other:
        return None
    return Reason((CLOSE - margin) / CLOSE / 2, f"the detector would nearly say {other}")


def _tiny(signals: Signals) -> Reason | None:
    area = _number(signals, "relative_area")
    if area is None:
        return None
    return Reason((TINY - area) / TINY / 2, f"it is small: {area:.3%} of the image")


def _beyond(column: str, limit: float, worst: float, text: str) -> Rule:
    """A rule about one signal: nothing at its limit, and as strong as can be at its worst."""

    def rule(signals: Signals) -> Reason | None:
        value = _number(signals, column)
        return None if value is None else Reason((limit - value) / (limit - worst), f"{text}: {value:.2f}")

    return rule


def _number(signals: Signals, name: str) -> float | None:
    value = signals.get(name)
    return None if value is None or math.isnan(value) else float(value)


_RULES: Final[tuple[Rule, ...]] = (
    _clip_prefers,
    _detector_torn,
    _beyond("detector_score", UNSURE_SCORE, 0, "the detector is unsure"),
    _beyond("crowding", CROWDED, 1, "another label overlaps it"),
    _beyond("mask_box_iou", LOOSE_MASK, 0, "the mask fills little of the box"),
    _beyond("sam_iou", UNSURE_MASK, 0, "SAM is unsure of the mask"),
    _beyond("mask_stability", UNSURE_MASK, 0, "the mask's edge is vague"),
    _tiny,
)
