"""The labels that plans drew and people answered: what figures of the report may rest on."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.arrow import numbers
from tasks.labels.arrays import RunLabels
from tasks.reviews.plans import Plans
from tasks.reviews.resolve import NO_ANSWER, Answers
from tasks.statistics.bounds import Bools, Floats, Ints

PURPOSES: Final = ("fit", "certify", "audit")
"""Of tasks that are drawn at random; others are chosen, and say nothing of the whole."""


@dataclass(frozen=True)
class Reviewed:
    """n labels, each once."""

    rows: Ints
    """(n,) rows of the run's labels."""
    wrong: Bools
    """(n,) disputed ones count as wrong."""
    weights: Floats
    """(n,) 1 / inclusion probability."""
    held_out: Bools
    """(n,) whether the calibrator has not been fitted to it."""


def reviewed_labels(labels: RunLabels, plans: Plans, answers: Answers) -> Reviewed:
    """Find the labels of a run that were drawn at random and have an answer.

    Args:
        labels: All labels of the run.
        plans: Its review plans with their tasks.
        answers: The resolved verdicts.
    """
    tasks = _drawn(plans)
    rows = labels.places(tasks["label_id"].to_pylist())
    wrong = answers.wrong_of(tasks["label_id"].combine_chunks())
    use = (rows >= 0) & (wrong != NO_ANSWER)
    held_out = numbers(pc.not_equal(tasks["purpose"], "fit"), np.bool_)
    inclusion = numbers(tasks["inclusion"], np.float64)
    rows, first = np.unique(rows[use], return_index=True)
    # A label drawn for fitting, whatever it was drawn for besides, is one that the calibrator knows.
    seen = np.isin(rows, labels.places(tasks.filter(pc.equal(tasks["purpose"], "fit"))["label_id"].to_pylist()))
    return Reviewed(
        rows=rows.astype(np.int64),
        wrong=wrong[use][first] != 0,
        weights=1 / inclusion[use][first],
        held_out=held_out[use][first] & ~seen,
    )


def asked(plans: Plans) -> set[str]:
    """Ids of all labels that were ever asked about, plants included."""
    return {name for _, tasks in plans for name in tasks["label_id"].to_pylist() if name is not None}


def _drawn(plans: Plans) -> pa.Table:
    columns = ["label_id", "purpose", "inclusion"]
    empty = pa.table({"label_id": pa.array([], pa.string()), "purpose": pa.array([], pa.string()),
                      "inclusion": pa.array([], pa.float64())})  # fmt: skip
    table = pa.concat_tables([empty, *(tasks.select(columns) for _, tasks in plans)], promote_options="permissive")
    chosen = pc.and_(pc.is_in(table["purpose"], value_set=pa.array(PURPOSES)), pc.is_valid(table["inclusion"]))
    return table.filter(pc.and_(chosen, pc.is_valid(table["label_id"])))
