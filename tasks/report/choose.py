"""Chooses the labels that the report shows."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import Current
from schemas.report import Picture
from schemas.reviews import LABEL_VERDICTS
from tasks.labels.arrays import RunLabels
from tasks.labels.read import current_markers
from tasks.plan.ledger import Ledger
from tasks.report.scores import detector_scores
from tasks.shard.files import read_part
from tasks.statistics.bounds import Bools, Ints
from tasks.store.store import Store

EACH: Final = 12
"""Labels of each kind."""
_KINDS: Final = ("accepted", "routed", "wrong")


def choose_labels(labels: RunLabels, answers: Sequence[str], kept: Bools, seed: int, each: int = EACH) -> list[Picture]:
    """Choose labels to show: accepted ones and waiting ones at random, and wrong ones, the accepted among them first.

    Args:
        labels: All labels of the run.
        answers: (N,) a member of LABEL_VERDICTS, "disputed", or "" for each label.
        kept: (N,) labels kept for fitting; they wait whatever their score, so others are shown before them.
        seed: Seed of the draw: the same labels give the same pictures.
        each: Most of each kind.

    Returns:
        The pictures, their reasons empty.
    """
    order = np.random.default_rng([seed, labels.count]).permutation(labels.count)
    wrong = np.array([bool(answer) and answer != LABEL_VERDICTS[0] for answer in answers], np.bool_)
    chosen = (
        order[labels.accepted[order]],
        _first(order[~labels.accepted[order]], ~kept),
        _first(order[wrong[order]], labels.accepted),
    )
    return [
        _picture(labels, row, kind, answers[row])
        for kind, rows in zip(_KINDS, chosen, strict=True)
        for row in rows[:each].tolist()
    ]


def with_reasons(
    pictures: Sequence[Picture], workspace: Store, run: str, ledger: Ledger, current: Current
) -> tuple[Picture, ...]:
    """Look up why each label was accepted or waits.

    Raises:
        StoreError: A table is missing or damaged.
    """
    wanted = pa.array(sorted({picture.label_id for picture in pictures}), pa.string())
    reasons: dict[str, str] = {}
    for marker in current_markers(workspace, run, ledger, current.fingerprint) if len(wanted) else ():
        table = read_part(workspace, marker.parts["route"], "route", ["label_id", "reason"])
        table = table.filter(pc.is_in(table["label_id"], value_set=wanted))
        reasons |= dict(zip(table["label_id"].to_pylist(), table["reason"].to_pylist(), strict=True))
        if len(reasons) == len(wanted):
            break
    return tuple(picture.model_copy(update={"reason": reasons.get(picture.label_id, "")}) for picture in pictures)


def _first(rows: Ints, preferred: Bools) -> Ints:
    """The preferred ones first, otherwise in their order."""
    return rows[np.argsort(~preferred[rows], kind="stable")]


def _picture(labels: RunLabels, row: int, kind: str, answer: str) -> Picture:
    p_correct, score = float(labels.p_correct[row]), float(detector_scores(labels)[row])
    return Picture.model_validate(
        {
            "kind": kind,
            "label_id": labels.label_ids[row].as_py(),
            "key": labels.keys[int(labels.image_index[row])].as_py(),
            "class_name": labels.class_names[int(labels.class_index[row])],
            "box": tuple(labels.boxes[row].tolist()),
            "accepted": bool(labels.accepted[row]),
            "p_correct": None if np.isnan(p_correct) else p_correct,
            "detector_score": None if np.isnan(score) else score,
            "reason": "",
            "answer": answer,
        }
    )
