"""What the review plans of a run ask, as items of a queue: each question once, in the order in which to ask."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from schemas.queue import Box, Kind
from schemas.reviews import ReviewPlan
from schemas.tables import BOX
from tasks.labels.read import Accepts
from tasks.reviews.open_tasks import open_tasks
from tasks.reviews.resolve import Answers, ImageAnswers

Wanted = Callable[[str, Kind], int]
"""Item and its kind -> how many people are asked."""
PLAN_PLACES: Final = 10**9
"""Places of one plan: earlier plans go first."""


class Task(NamedTuple):
    """One question; a tuple, since there are many."""

    item: str
    """Id of the item."""
    place: int
    """Order in which to ask, over all plans."""
    plan: int
    """Number of the plan."""
    purpose: str
    """Why it is asked."""
    kind: Kind
    """What people see."""
    key: str
    """Of the image."""
    class_name: str | None
    """The label's, or the one to look for; None: every class."""
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
    strange: Counter[str]
    """Class that the campaign does not have any more -> questions about it, which are in neither of the others."""


def asked_by(
    plans: Sequence[tuple[ReviewPlan, pa.Table]],
    answers: Answers,
    images: ImageAnswers,
    accepts: Accepts,
    classes: Collection[str],
) -> Asked:
    """Gather the questions of plans.

    Args:
        plans: Those about the labels as they are, in the order of their numbers.
        answers: What was answered about labels.
        images: What was answered about images.
        accepts: The decisions of the policy in force.
        classes: Of the campaign; questions about others are not asked.
    """
    known = pa.array(list(classes), pa.string())
    every: set[str] = set()
    found: dict[str, Task] = {}
    strange: dict[str, str] = {}
    for plan, tasks in plans:
        theirs = pc.or_(tasks["class_name"].is_null(), pc.is_in(tasks["class_name"], value_set=known))
        odd = tasks.filter(pc.invert(theirs))
        strange.update(zip(_ids(odd).to_pylist(), odd["class_name"].to_pylist(), strict=True))
        ours = tasks.filter(theirs)
        every.update(_ids(ours).to_pylist())
        for task in _tasks(open_tasks(ours, answers, images, accepts), plan.number):
            found.setdefault(task.item, task)
    return Asked(frozenset(every), found, Counter(strange.values()))


def reviews_wanted(item: str, kind: Kind, seed: int, share: float) -> int:
    """Say how many people are asked: two for a share of the labels, chosen by a hash, so the same ones every time.

    Args:
        item: Id of the item.
        kind: Questions about images are asked once.
        seed: Of the choice.
        share: Of the labels, [0, 1].
    """
    digest = hashlib.sha256(f"second\n{seed}\n{item}".encode()).digest()
    # 53 bits, so that the division is exact and the quotient stays below 1.
    return 2 if kind == "label" and (int.from_bytes(digest[:8]) >> 11) / 2**53 < share else 1


def _ids(tasks: pa.Table) -> pa.ChunkedArray:
    of_image = pc.binary_join_element_wise(tasks["key"], tasks["class_name"].fill_null(""), "\t")
    return pc.if_else(tasks["label_id"].is_null(), of_image, tasks["label_id"])


def _tasks(tasks: pa.Table, plan: int) -> list[Task]:
    ids = _ids(tasks).to_pylist()
    return [_task(item, row, plan) for item, row in zip(ids, tasks.to_pylist(), strict=True)]


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
