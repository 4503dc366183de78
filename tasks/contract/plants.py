"""Makes known-wrong labels out of right ones, to see how many wrong labels reviewers miss.

Half get another class (the detector's or CLIP's second choice), half a part of their box. They have the image, the
score and the look of labels that are asked about anyway, and an id of the same form. Whether they are as hard to see as
what detectors get wrong is not known; they stand for the confusions and the bad boxes, not for boxes on nothing.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.reviews import PLANTED_ACCEPTED, PLANTED_ROUTED
from schemas.tables import BOX
from tasks.collect.markers import current_markers
from tasks.contract.costs import VERIFY_S
from tasks.contract.run_reviews import RunReviews
from tasks.contract.task_rows import task_table
from tasks.plan.ledger import Ledger
from tasks.reviews.resolve import CORRECT
from tasks.shard.parts import read_part
from tasks.statistics.bounds import Floats, Ints

KEPT: Final = 0.35
"""Share of a box's width or height that is left of it, so its IoU with the whole box as well."""
PURPOSE: Final = "plant"


def plant(
    reviews: RunReviews, scores: Floats, cut: float, count: int, rng: np.random.Generator, *, routed: bool
) -> pa.Table:
    """Make known-wrong labels from labels of the fit side that reviewers found correct.

    Args:
        reviews: The run.
        scores: (N,) p(correct) of every label.
        cut: Labels at or above it have the scores of accepted ones.
        count: How many; fewer where there are not as many labels to make them from.
        rng: Which, and what is wrong with them.
        routed: Make half of them from labels below the cut.

    Returns:
        Rows of TASKS.
    """
    labels, answers = reviews.labels, reviews.answers
    right = reviews.fit_side() & (answers.wrong_of(labels.label_ids) == CORRECT)
    above = scores >= cut
    high, low = rng.permutation(np.flatnonzero(right & above)), rng.permutation(np.flatnonzero(right & ~above))
    low = low[: count // 2] if routed else low[:0]
    high = high[: count - len(low)]
    rows = np.concatenate([high, low])
    names = [labels.class_names[place] for place in labels.class_index[rows].tolist()]
    swapped = _swapped(reviews, rows, names, rng)
    boxes = labels.boxes[rows].copy()
    for place in np.flatnonzero([name == old for name, old in zip(swapped, names, strict=True)]):
        boxes[place] = _part(boxes[place], rng)
    return task_table(
        len(rows),
        purpose=[PURPOSE] * len(rows),
        label_id=[
            planted_id(reviews.run, reviews.seed, len(reviews.plans), label)
            for label in labels.label_ids.take(pa.array(rows)).to_pylist()
        ],
        key=labels.keys.take(pa.array(labels.image_index[rows])),
        class_name=swapped,
        p_correct=pa.array(scores[rows].astype(np.float32), from_pandas=True),
        stratum=np.repeat([PLANTED_ACCEPTED, PLANTED_ROUTED], [len(high), len(low)]),
        seconds=np.full(len(rows), VERIFY_S, np.float32),
        **{side: boxes[:, column] for column, side in enumerate(BOX)},
    )


def _swapped(reviews: RunReviews, rows: Ints, names: list[str], rng: np.random.Generator) -> list[str]:
    """Another class for half of the labels, where a second choice is a declared class."""
    ids = reviews.labels.label_ids.take(pa.array(rows)).to_pylist()
    seconds = second_classes(reviews, ids)
    declared = set(reviews.labels.class_names)
    found = []
    for label, name, chance in zip(ids, names, rng.random(len(ids)).tolist(), strict=True):
        other = next((one for one in seconds.get(label, ()) if one in declared and one != name), name)
        found.append(other if chance < 0.5 else name)
    return found


def second_classes(reviews: RunReviews, ids: list[str]) -> Mapping[str, tuple[str | None, ...]]:
    """The detector's and CLIP's second text of labels."""
    wanted, found = pa.array(ids, pa.string()), {}
    with Ledger.load(reviews.workspace, reviews.run) as ledger:
        markers = list(current_markers(reviews.workspace, reviews.run, ledger, reviews.current.fingerprint))
    for marker in markers:
        detect = read_part(reviews.workspace, marker.parts["detect"], "detect", ["label_id", "runner_up"])
        chosen = pc.is_in(detect["label_id"], value_set=wanted)
        if pc.any(chosen).as_py():
            score = read_part(reviews.workspace, marker.parts["score"], "score", ["clip_other"])
            columns = [detect["label_id"], detect["runner_up"], score["clip_other"]]
            for label, first, second in zip(*(column.filter(chosen).to_pylist() for column in columns), strict=True):
                found[label] = (first, second)
    return found


def _part(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of a box along one side: what a detector takes for the whole, and never outside the image."""
    axis, end = rng.integers(0, 2, 2).tolist()
    cut = box.copy()
    length = box[axis + 2] - box[axis]
    if end:
        cut[axis] = box[axis + 2] - KEPT * length
    else:
        cut[axis + 2] = box[axis] + KEPT * length
    return cut


def planted_id(run: str, seed: int, plans: int, label_id: str) -> str:
    """Make the id of a plant of a label's own, of the same form.

    Args:
        run: Name of the run.
        seed: Of its first plan.
        plans: How many plans there were before.
        label_id: Of the label that it is made from.
    """
    text = f"plant\0{run}\0{seed}\0{plans}\0{label_id}"
    return hashlib.sha256(text.encode()).hexdigest()[: len(label_id)]
