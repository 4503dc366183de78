"""Lays labels out as review tasks, and puts tasks into the order in which they are asked."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.reviews import TASKS
from schemas.tables import BOX
from tasks.contract.costs import VERIFY_S
from tasks.contract.run_labels import RunLabels
from tasks.reviews.resolve import NO_ANSWER, Answers
from tasks.statistics.bounds import Floats, Ints


def label_tasks(
    labels: RunLabels,
    rows: Ints,
    purpose: str,
    scores: Floats,
    answers: Answers,
    inclusion: Floats | None = None,
    strata: Ints | None = None,
) -> pa.Table:
    """Ask about labels, in the order of rows.

    Args:
        labels: Labels of the run.
        rows: (n,) which of them.
        purpose: Why.
        scores: (N,) p(correct) of every label; NaN where there is none.
        answers: What is known already: labels with an answer take no time, unless it is asked for again to settle a
            dispute (purpose doubtful).
        inclusion: (n,) probability with which each was to be drawn; None: chosen.
        strata: (n,) index into the plan's strata.
    """
    ids = labels.label_ids.take(pa.array(rows))
    known = answers.wrong_of(ids) != NO_ANSWER
    return task_table(
        len(rows),
        purpose=[purpose] * len(rows),
        label_id=ids,
        key=labels.keys.take(pa.array(labels.image_index[rows])),
        class_name=[labels.class_names[place] for place in labels.class_index[rows].tolist()],
        p_correct=pa.array(scores[rows].astype(np.float32), from_pandas=True),
        inclusion=inclusion,
        stratum=strata,
        seconds=np.where(known & (purpose != "doubtful"), 0.0, VERIFY_S).astype(np.float32),
        **{side: labels.boxes[rows, column] for column, side in enumerate(BOX)},
    )


def task_table(count: int, **columns: object) -> pa.Table:
    """Rows of TASKS from columns; those not given are null, `place` counts from 0."""
    given = {"place": np.arange(count), **columns}
    arrays = [
        pa.nulls(count, field.type) if given.get(field.name) is None else pa.array(given[field.name]).cast(field.type)
        for field in TASKS
    ]
    return pa.table(arrays, schema=TASKS)


def class_by_class(tables: Sequence[pa.Table], rng: np.random.Generator) -> pa.Table:
    """Ask about one class after the other, the one with most tasks first.

    Within a class, tasks that were chosen keep the order of their rows, best first; drawn ones and plants stand among
    them where chance puts them, so that nobody can tell them by their place.
    """
    table = pa.concat_tables([TASKS.empty_table(), *tables])
    names = np.array(table["class_name"].to_pylist(), dtype=np.str_)
    purposes = np.array(table["purpose"].to_pylist(), dtype=np.str_)
    where = rng.random(len(names))
    order = []
    kinds, counts = np.unique(names, return_counts=True)
    for name in kinds[np.argsort(-counts, kind="stable")]:
        inside = np.flatnonzero(names == name)
        chosen = inside[purposes[inside] == "doubtful"]
        where[chosen] = np.sort(where[chosen])
        order.append(inside[np.argsort(where[inside], kind="stable")])
    return numbered(table.take(pa.array(np.concatenate([np.zeros(0, np.int64), *order]))))


def without_labels_of(tasks: pa.Table, asked: pa.Table) -> pa.Table:
    """Leave out the tasks about labels that other tasks ask about already; those about images stay."""
    twice = pc.is_in(tasks["label_id"], value_set=asked["label_id"].combine_chunks())
    return tasks.filter(pc.or_(tasks["label_id"].is_null(), pc.invert(twice)))


def numbered(table: pa.Table) -> pa.Table:
    """The same tasks with `place` counting from 0."""
    place = pa.array(np.arange(table.num_rows), pa.int32())
    return table.set_column(table.column_names.index("place"), TASKS.field("place"), place)
