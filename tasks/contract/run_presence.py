"""What CLIP sees in the images of a run that no box shows, and whom to ask about it."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UserError
from schemas.records import Current
from schemas.tables import PRESENCE
from tasks.collect.markers import current_markers
from tasks.columns import numbers
from tasks.contract.costs import CHECK_CLASS_S
from tasks.contract.run_labels import RunLabels
from tasks.contract.task_rows import task_table
from tasks.plan.ledger import Ledger
from tasks.reviews.resolve import ImageAnswers
from tasks.shard.parts import read_part
from tasks.store.store import Store

POSSIBLE_MISS: Final = "possible_miss"


def read_presence(workspace: Store, run: str, ledger: Ledger, current: Current) -> pa.Table:
    """Read the PRESENCE rows of all images that the run has now, in the order of its shards.

    Raises:
        UserError: The run is older than this stage.
        StoreError: A table is missing or damaged.
    """
    tables = [PRESENCE.empty_table()]
    for marker in current_markers(workspace, run, ledger, current.fingerprint):
        if "presence" not in marker.parts:
            raise UserError(
                f"run {run!r} was made by a Vouch that did not look at whole images; use `vouch run` once more: it "
                "adds what is missing and keeps the labels"
            )
        table = read_part(workspace, marker.parts["presence"], "presence")
        live = pa.array(sorted(ledger.keys_of(marker.shard)), pa.string())
        tables.append(table.filter(pc.is_in(table["key"], value_set=live)))
    return pa.concat_tables(tables)


def possible_misses(
    labels: RunLabels, presence: pa.Table, image_answers: ImageAnswers, asked: pa.Table, count: int
) -> pa.Table:
    """Queue the pairs of image and class that CLIP is surest of and no box shows.

    Pairs that somebody has checked, or drawn a missed object of, or that `asked` has already, alone or with their whole
    image, are left out. Of the rest the `count` of greatest presence are asked class by class, greatest presence first,
    so that a reviewer looks for one thing at a time. They are chosen, not drawn: no statistic may be made of their
    answers.

    Args:
        labels: All labels of the run.
        presence: As `read_presence` gives it.
        image_answers: As tasks.reviews.resolve.missed_and_checked gives it.
        asked: Rows of TASKS of this and earlier plans; only rows about images matter.
        count: How many at most.

    Returns:
        Rows of TASKS with purpose "possible_miss", a class each; place counts from 0.
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
    """Lay out questions about images as rows of TASKS, in the order given.

    Args:
        purpose: Why.
        keys: n image keys.
        class_names: n classes to look for; None: every class.
        seconds: Expected time of each.
        columns: Further columns of TASKS, n values each.
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
