"""Writes review tasks as table rows: labels, control items (known-wrong labels), images that may hold a missed object.

Control items measure how many wrong labels reviewers miss. They are made out of correct labels: half get another class
(the detector's or CLIP's second choice), half a part of their box. They have the image, the score and the look of
labels that are asked about anyway, and an id of the same form. Whether they are as hard to see as what detectors get
wrong is not known; they stand for the confusions and the bad boxes, not for boxes on nothing.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import HONEYPOT_ACCEPTED, HONEYPOT_ROUTED, TASKS
from vouch_labels.schemas.tables import BOX, PRESENCE
from vouch_labels.tasks.arrow import boxes_of, numbers
from vouch_labels.tasks.certify.data import RunReviews
from vouch_labels.tasks.labels.arrays import RunLabels
from vouch_labels.tasks.labels.scan import THREADS, Shard, scan, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import CHECK_CLASS_S, VERIFY_S
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers, ImageAnswers
from vouch_labels.tasks.statistics.bounds import Floats, Ints
from vouch_labels.tasks.store.store import Store, map_ordered

KEPT: Final = 0.35
"""Share of a box's width or height that is left of it, so its IoU with the whole box as well."""
PURPOSE: Final = "plant"
MIXED: Final = 20
"""Chosen tasks of a class, best first, that are asked in random order before the next so many."""

POSSIBLE_MISS: Final = "possible_miss"


def label_tasks(
    labels: RunLabels,
    rows: Ints,
    purpose: str,
    scores: Floats,
    answers: Answers,
    inclusion: Floats | None = None,
    strata: Ints | None = None,
) -> pa.Table:
    """Ask about labels, in the order of rows, (n,).

    Labels with an answer take no time, unless it is asked for again to settle a dispute (purpose doubtful). inclusion
    is (n,) the probability with which each was to be drawn, None: chosen; strata (n,) an index into the plan's strata.
    """
    table = labels.table_of(rows)
    known = answers.wrong_of(table["label_id"]) != NO_ANSWER
    return task_table(
        len(rows),
        purpose=[purpose] * len(rows),
        label_id=table["label_id"],
        key=table["key"],
        class_name=[labels.class_names[place] for place in labels.class_index[rows].tolist()],
        p_correct=pa.array(scores[rows].astype(np.float32), from_pandas=True),
        inclusion=inclusion,
        stratum=strata,
        seconds=np.where(known & (purpose != "doubtful"), 0.0, VERIFY_S).astype(np.float32),
        **{side: table[side] for side in BOX},
    )


def task_table(count: int, **columns: object) -> pa.Table:
    """Rows of TASKS from columns; those not given are null, `place` counts from 0."""
    given = {"place": np.arange(count), **columns}
    arrays = [
        pa.nulls(count, field.type) if (values := given.get(field.name)) is None else _column(values).cast(field.type)
        for field in TASKS
    ]
    return pa.table(arrays, schema=TASKS)


def class_by_class(tables: Sequence[pa.Table], rng: np.random.Generator, block: int | None = None) -> pa.Table:
    """Ask about one class after the other, the one with most tasks first; so block after block of so many rows.

    Within a class, tasks that were chosen come best first, but mixed among every `MIXED`, so that scores which fall
    from one to the next do not tell them; drawn ones and honeypots stand among them where chance puts them.
    """
    table = pa.concat_tables([TASKS.empty_table(), *tables])
    names = np.array(table["class_name"].to_pylist(), dtype=np.str_)
    purposes = np.array(table["purpose"].to_pylist(), dtype=np.str_)
    where = rng.random(len(names))
    blocks = np.arange(len(names)) // (block or max(len(names), 1))
    hidden = purposes == PURPOSE
    blocks[hidden] = rng.integers(0, blocks[~hidden].max(initial=0) + 1, int(hidden.sum()))
    order = []
    kinds, counts = np.unique(names, return_counts=True)
    kinds = kinds[np.argsort(-counts, kind="stable")]
    for number, name in itertools.product(np.unique(blocks).tolist(), kinds):
        inside = np.flatnonzero((names == name) & (blocks == number))
        chosen = inside[purposes[inside] == "doubtful"]
        mixed = np.lexsort((rng.random(len(chosen)), np.arange(len(chosen)) // MIXED))
        where[chosen[mixed]] = np.sort(where[chosen])
        order.append(inside[np.argsort(where[inside], kind="stable")])
    return numbered(table.take(pa.array(np.concatenate([np.zeros(0, np.int64), *order]))))


def without_labels_of(tasks: pa.Table, asked: pa.Table) -> pa.Table:
    """Leave out the tasks about labels that other tasks ask about already; those about images stay."""
    twice = pc.is_in(tasks["label_id"], value_set=asked["label_id"].combine_chunks())
    return tasks.filter(pc.or_(tasks["label_id"].is_null(), pc.invert(twice)))


def _column(values: Any) -> pa.Array | pa.ChunkedArray:  # noqa: ANN401 - whatever an array is made of
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values)


def numbered(table: pa.Table) -> pa.Table:
    """The same tasks with `place` counting from 0."""
    place = pa.array(np.arange(table.num_rows), pa.int32())
    return table.set_column(table.column_names.index("place"), TASKS.field("place"), place)


def make_honeypots(
    reviews: RunReviews, scores: Floats, cut: float, count: int, rng: np.random.Generator, *, routed: bool
) -> pa.Table:
    """Make known-wrong labels, rows of TASKS, from labels that reviewers found correct.

    Labels at or above `cut` have the scores of accepted ones; `routed` makes half of the honeypots from those below.
    Where there are too few labels, there are fewer than `count`.
    """
    labels = reviews.labels
    right = reviews.codes == CORRECT
    above = scores >= cut
    high, low = rng.permutation(np.flatnonzero(right & above)), rng.permutation(np.flatnonzero(right & ~above))
    low = low[: count // 2] if routed else low[:0]
    high = high[: count - len(low)]
    rows = np.concatenate([high, low])
    names = [labels.class_names[place] for place in labels.class_index[rows].tolist()]
    table = labels.table_of(rows)
    ids, boxes = table["label_id"].to_pylist(), boxes_of(table)
    swapped = _swapped(reviews, ids, names, rng)
    for place in np.flatnonzero([name == old for name, old in zip(swapped, names, strict=True)]):
        boxes[place] = _part(boxes[place], rng)
    return task_table(
        len(rows),
        purpose=[PURPOSE] * len(rows),
        label_id=[honeypot_id(reviews.run, reviews.seed, len(reviews.plans), label) for label in ids],
        key=table["key"],
        class_name=swapped,
        p_correct=pa.array(scores[rows].astype(np.float32), from_pandas=True),
        stratum=np.repeat([HONEYPOT_ACCEPTED, HONEYPOT_ROUTED], [len(high), len(low)]),
        seconds=np.full(len(rows), VERIFY_S, np.float32),
        **{side: boxes[:, column] for column, side in enumerate(BOX)},
    )


def _swapped(reviews: RunReviews, ids: list[str], names: list[str], rng: np.random.Generator) -> list[str]:
    """Another class for half of the labels, where a second choice is a declared class."""
    seconds = second_classes(reviews, ids)
    declared = set(reviews.labels.class_names)
    found = []
    for label, name, chance in zip(ids, names, rng.random(len(ids)).tolist(), strict=True):
        other = next((one for one in seconds.get(label, ()) if one in declared and one != name), name)
        found.append(other if chance < 0.5 else name)
    return found


def second_classes(reviews: RunReviews, ids: list[str]) -> Mapping[str, tuple[str | None, ...]]:
    """The detector's and CLIP's second text of labels."""
    columns, sought = ["label_id", "runner_up", "clip_other"], {"label_id": pa.array(ids, pa.string())}
    run, fingerprint = reviews.run, reviews.current.fingerprint
    with Ledger.load(reviews.workspace, run) as ledger:
        tables = pa.concat_tables(scan(reviews.workspace, run, ledger, fingerprint, columns, sought))
    return {row["label_id"]: (row["runner_up"], row["clip_other"]) for row in tables.to_pylist()}


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


def honeypot_id(run: str, seed: int, plans: int, label_id: str) -> str:
    """Make the id of a honeypot of a label's own, of the same form; seed is that of the run's first plan."""
    text = f"plant\0{run}\0{seed}\0{plans}\0{label_id}"
    return hashlib.sha256(text.encode()).hexdigest()[: len(label_id)]


def read_presence(workspace: Store, run: str, ledger: Ledger, current: Current) -> pa.Table:
    """Read the PRESENCE rows of all images that the run has now, in the order of its shards.

    Raises:
        UserError: The run is older than this stage.
        StoreError: A table is missing or damaged.
    """
    tables = [PRESENCE.empty_table()]
    for table in map_ordered(Shard.presence, shards(workspace, run, ledger, current.fingerprint), THREADS):
        if table is None:
            raise UserError(
                f"run {run!r} was made by a Vouch that did not look at whole images; use `vouch run` once more: it "
                "adds what is missing and keeps the labels"
            )
        tables.append(table)
    return pa.concat_tables(tables)


def possible_misses(
    labels: RunLabels, presence: pa.Table, image_answers: ImageAnswers, asked: pa.Table, count: int
) -> pa.Table:
    """Queue the pairs of image and class that CLIP is surest of and no box shows.

    Pairs that were checked, or drawn a missed object of, or that `asked` has already, alone or with their whole image,
    are left out. Of the rest the `count` of greatest presence are asked class by class, greatest presence first, so
    that a reviewer looks for one thing at a time. They are chosen, not drawn: no statistic may be made of their
    answers. Rows of TASKS with purpose "possible_miss", a class each; place counts from 0.
    """
    images, classes = _places(presence, labels)
    known = (images >= 0) & (classes >= 0)
    about_images = asked.filter(pc.is_null(asked["label_id"]))
    for done in (image_answers.checked, image_answers.missed, about_images):
        known &= ~_covered(images, classes, done, labels)
    values = numbers(presence["clip_presence"], np.float32)
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(-values[rows], kind="stable")][:count]
    rows = rows[np.argsort(classes[rows], kind="stable")]
    keys, names = labels.keys.take(pa.array(images[rows])), [labels.class_names[index] for index in classes[rows]]
    return image_tasks(POSSIBLE_MISS, keys, names, CHECK_CLASS_S)


def image_tasks(
    purpose: str, keys: pa.Array, class_names: list[str | None], seconds: float, **columns: object
) -> pa.Table:
    """Make rows of TASKS about n images, in the order given.

    A class of None asks for every class; seconds is the expected time of each; columns are further ones of TASKS.
    """
    return task_table(
        len(keys),
        purpose=[purpose] * len(keys),
        key=keys,
        class_name=pa.array(class_names, pa.string()),
        seconds=np.full(len(keys), seconds, np.float32),
        **columns,
    )


def _places(rows: pa.Table, labels: RunLabels) -> tuple[np.ndarray, np.ndarray]:
    """Image and class of rows with key and class_name, -1 for what the run does not have."""
    names = pa.array(labels.class_names, pa.string())
    found = (
        pc.index_in(rows["key"], value_set=labels.keys),
        pc.index_in(rows["class_name"], value_set=names, skip_nulls=True),
    )
    images, classes = (numbers(column.fill_null(-1), np.int64) for column in found)
    return images, classes


def _covered(images: np.ndarray, classes: np.ndarray, done: pa.Table, labels: RunLabels) -> np.ndarray:
    """Which pairs are among those of a table, where a row without a class stands for all."""
    whole = numbers(done["class_name"].is_null(), np.bool_)
    done_images, done_classes = _places(done, labels)
    width = len(labels.class_names)
    pairs = done_images * width + done_classes
    single = ~whole & (done_classes >= 0)
    return np.asarray(np.isin(images, done_images[whole]) | np.isin(images * width + classes, pairs[single]), np.bool_)
