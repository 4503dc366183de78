"""Simulates a reviewer who knows the ground truth and errs at a given rate; checks what the user wants simulated."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, get_args

import numpy as np
import pyarrow as pa

from vouch_labels.schemas.campaign import Gate, RoutingConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import LABEL_VERDICTS, VERDICTS
from vouch_labels.tasks.evaluate.run_truth import BAD_BOX, CORRECT, NOT_AN_OBJECT, UNKNOWN, WRONG_CLASS, RunTruth
from vouch_labels.tasks.labels.arrays import RunLabels
from vouch_labels.tasks.reviews.plans import CHANGE_CLASS_S, CLICK_BOX_S, DRAW_BOX_S, VERIFY_S, image_check_s

REVIEWER: Final = "simulated"
SECONDS: Final = np.array([VERIFY_S, VERIFY_S + CHANGE_CLASS_S, VERIFY_S + CLICK_BOX_S, VERIFY_S], np.float64)
"""Time of each of LABEL_VERDICTS: looking, and what has to be corrected."""
HONEYPOT: Final = "plant"

MOST_DRAWS: Final = 100_000

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Errors:
    """How often the reviewer errs."""

    missed: float = 0.0
    """Share of wrong labels, honeypots included, that the reviewer calls correct."""
    false_alarms: float = 0.0
    """Share of correct labels that the reviewer calls not an object."""


PERFECT: Final = Errors()


def answer(
    tasks: pa.Table,
    labels: RunLabels,
    truth: RunTruth,
    at: datetime,
    errors: Errors = PERFECT,
    seed: int = 0,
    reviewer: str = REVIEWER,
) -> pa.Table:
    """Answer a review plan's tasks from ground truth.

    Honeypots are called not an object. Whole images get a `checked` row, and a `missed` one for each object (of the
    class asked for, or of any) that no label shows; no object in an image is missed. What has no truth is not answered,
    as a person may skip it. Whether the reviewer errs depends on seed, reviewer and label alone, so asked again they
    answer the same. Rows of schemas.reviews.VERDICTS come in the order asked, each given after those before it, the
    first after `at`.
    """
    asked = tasks.sort_by("place").to_pylist()
    rows = labels.places([task["label_id"] or "" for task in asked])
    image_of = {key: number for number, key in enumerate(labels.keys.to_pylist())}
    session = _Session(labels, truth, errors, seed, reviewer)
    found: list[dict[str, Any]] = []
    clock = at
    for task, row in zip(asked, rows.tolist(), strict=True):
        if task["label_id"] is None:
            answers = list(session.image(image_of.get(task["key"]), task))
        else:
            answers = list(session.label(row, task))
        for one in answers:
            clock += timedelta(seconds=one["seconds"])
            found.append(one | {"reviewer": reviewer, "reviewed_at": clock, "simulated": True})
    return pa.Table.from_pylist(found, schema=VERDICTS)


def chances(label_ids: list[str], seed: int, reviewer: str = REVIEWER) -> np.ndarray:
    """Number in [0, 1) of each label, which decides whether the reviewer errs on it, (n,)."""
    digests = (hashlib.sha256(f"errs\n{seed}\n{reviewer}\n{label_id}".encode()).digest() for label_id in label_ids)
    return np.fromiter(((int.from_bytes(digest[:8]) >> 11) / 2**53 for digest in digests), np.float64, len(label_ids))


def called(verdict: np.ndarray, chance: np.ndarray, errors: Errors) -> np.ndarray:
    """Give the reviewer's verdicts on n labels, places in LABEL_VERDICTS; UNKNOWN stays."""
    wrong = (verdict != CORRECT) & (verdict != UNKNOWN)
    given = np.where(wrong & (chance < errors.missed), CORRECT, verdict)
    alarmed = (verdict == CORRECT) & (chance < errors.false_alarms)
    return np.where(alarmed, NOT_AN_OBJECT, given).astype(np.int8)


class _Session:
    def __init__(self, labels: RunLabels, truth: RunTruth, errors: Errors, seed: int, reviewer: str) -> None:
        self._labels, self._truth = labels, truth
        self._errors, self._seed, self._reviewer = errors, seed, reviewer

    def label(self, row: int, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        honeypot = task["purpose"] == HONEYPOT
        right = NOT_AN_OBJECT if honeypot else int(self._truth.verdict[row]) if row >= 0 else UNKNOWN
        if right == UNKNOWN:
            return
        chance = chances([task["label_id"]], self._seed, self._reviewer)
        given = int(called(np.array([right]), chance, self._errors)[0])
        one = {"label_id": task["label_id"], "key": task["key"], "verdict": LABEL_VERDICTS[given]}
        one["seconds"] = float(SECONDS[given])
        if given in (WRONG_CLASS, BAD_BOX):
            one["class_name"] = self._labels.class_names[int(self._truth.class_index[row])]
            if given == BAD_BOX:
                one |= _box(self._truth.boxes[row])
        yield one

    def image(self, image: int | None, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if image is None or not self._truth.known[image]:
            return
        asked = task["class_name"]
        for place in np.flatnonzero(self._truth.missed_image == image).tolist():
            name, box = self._labels.class_names[int(self._truth.missed_class[place])], self._truth.missed_boxes[place]
            if asked in (None, name) and (box[2:] > box[:2]).all():
                one = {"label_id": None, "key": task["key"], "verdict": "missed", "class_name": name}
                yield one | _box(box) | {"seconds": DRAW_BOX_S}
        checks = len(self._labels.class_names) if asked is None else 1
        yield {
            "label_id": None, "key": task["key"], "verdict": "checked", "class_name": asked,
            "seconds": image_check_s(checks),
        }  # fmt: skip


def _box(box: np.ndarray) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), box.tolist(), strict=True))


@dataclass(frozen=True)
class Question:
    """What to play."""

    precisions: tuple[float, ...]
    reviews: tuple[int, ...]
    draws: int
    gate: Gate
    confidence: float
    errors: Errors
    automate: float
    """Share of labels that the answers are about."""
    honeypots: int = 0
    """Known-wrong labels that show what the reviewer misses."""
    assumed: float = 0.0
    """Share of wrong labels that the guarantee assumes to be missed, where no honeypot measures it."""


def ask(
    routing: RoutingConfig,
    precisions: str | None,
    reviews: str,
    draws: int,
    gate: str | None,
    missed: float,
    automate: float,
    honeypots: int = 0,
) -> Question:
    """Check what is asked for; None stands for what the campaign says.

    Raises:
        UserError: One of them makes no sense.
    """
    chosen = next((one for one in get_args(Gate) if one == (gate or routing.gate)), None)
    if chosen is None:
        raise UserError(f"--gate: {gate!r} is none; choose {' or '.join(get_args(Gate))}")
    if not 1 <= draws <= MOST_DRAWS:
        raise UserError(f"--draws: {draws} is not between 1 and {MOST_DRAWS:,}")
    for name, share in (("--missed", missed), ("--automate", automate)):
        if not 0 <= share <= 1:
            raise UserError(f"{name}: {share:g} is no share between 0 and 1")
    asked = _numbers("--precision", precisions, float) if precisions is not None else (routing.precision,)
    for precision in asked:
        if not 0.5 < precision < 1:
            raise UserError(f"--precision: {precision:g} is not between 0.5 and 1; 0.95 says 95%")
    counts = _numbers("--reviews", reviews, int)
    if min(counts) < 1:
        raise UserError(f"--reviews: {min(counts)} is no number of labels to look at; give numbers from 1 on")
    if honeypots < 0:
        raise UserError(f"--honeypots: {honeypots} is no number of labels")
    errors = Errors(missed=missed)
    return Question(asked, counts, draws, chosen, routing.confidence, errors, automate, honeypots, routing.missed)


def _numbers(name: str, value: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Different numbers between commas or spaces, ascending."""
    try:
        found = tuple(sorted({kind(part) for part in value.replace(",", " ").split()}))
    except ValueError:
        found = ()
    if not found:
        example = "0.95,0.98" if name == "--precision" else "200,400,800"
        raise UserError(f"{name}: {value!r} is no list of numbers; write {example}, say")
    return found
