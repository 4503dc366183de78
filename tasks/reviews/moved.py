"""Lets reviews follow images that moved: what was asked and answered of an old key holds of the new one.

Label ids are made of the key and the content. Records of moves say which new ids stand for which old ones; reviews are
read through them, and no file of verdicts or tasks is ever changed.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.arrow import first_places, flat, numbers
from vouch_labels.tasks.store.store import Store

FOLDER: Final = "reviews/moved/"

MOVED: Final = pa.schema(
    [
        pa.field("label_id", pa.string()),  # null: the row is about the image
        pa.field("key", pa.string(), nullable=False),
        pa.field("new_label_id", pa.string()),
        pa.field("new_key", pa.string(), nullable=False),
        pa.field("plans", pa.int32(), nullable=False),  # review plans of the run at that time
        pa.field("moved_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""reviews/moved/<run>/<generation>.parquet: the reviewed images that moved with a generation, and their labels."""


def moved_key(run: str, generation: int) -> str:
    """Key of the record of what moved with a generation."""
    return f"{FOLDER}{run}/{generation:06d}.parquet"


def read_moved(workspace: Store, keys: Iterable[str]) -> list[pa.Table]:
    """Read records of moves, in the order in which images moved; those in which nothing did are left out.

    Raises:
        StoreError: One is damaged.
    """
    found = []
    for key in keys:
        try:
            table = pq.read_table(pa.BufferReader(workspace.get(key).data), schema=MOVED)
        except (pa.ArrowException, OSError):
            raise StoreError(f"{workspace.uri}/{key} is damaged; restore it, or delete it and run again") from None
        if table.num_rows:
            found.append((table["moved_at"][0].as_py(), key, table))
    return [table for *_, table in sorted(found, key=lambda entry: entry[:2])]


def with_moved_verdicts(verdicts: pa.Table, moves: Iterable[pa.Table]) -> pa.Table:
    """Add to rows of VERDICTS what they say of images that moved since; the time that they took counts once."""
    for moved in moves:
        of_label = _places(verdicts["label_id"], moved, "label_id")
        about_image = numbers(verdicts["label_id"].is_null(), np.bool_)
        before = pc.less_equal(verdicts["reviewed_at"], moved["moved_at"][0]).fill_null(True)
        of_image = np.where(about_image & numbers(before, np.bool_), _places(verdicts["key"], moved, "key"), -1)
        place = np.where(of_label >= 0, of_label, of_image)
        rows = np.flatnonzero(place >= 0)
        new = moved.take(pa.array(place[rows], pa.int64()))
        copies = verdicts.take(pa.array(rows, pa.int64()))
        columns = {
            "label_id": pc.if_else(copies["label_id"].is_null(), pa.scalar(None, pa.string()), new["new_label_id"]),
            "key": pc.if_else(copies["key"].is_null(), pa.scalar(None, pa.string()), new["new_key"]),
            "seconds": pa.nulls(len(rows), pa.float32()),
        }
        for name, column in columns.items():
            copies = copies.set_column(copies.column_names.index(name), VERDICTS.field(name), column)
        both = pa.concat_tables([verdicts, copies])
        # Of an image that is back at its place the first rows say it already.
        first = first_places(both, [name for name in VERDICTS.names if name != "seconds"])
        place = np.arange(both.num_rows)
        verdicts = both.filter(pa.array((place < verdicts.num_rows) | (first == place)))
    return verdicts


def with_moved_tasks(tasks: pa.Table, number: int, moves: Iterable[pa.Table]) -> pa.Table:
    """Let the tasks of a plan be about the images that they were drawn from, where those are now."""
    for moved in moves:
        if number > moved["plans"][0].as_py():
            continue
        for name in ("label_id", "key"):
            place = _places(tasks[name], moved, name)
            new = moved[f"new_{name}"].take(pa.array(np.maximum(place, 0), pa.int64()))
            column = pc.if_else(pa.array(place >= 0), new, tasks[name])
            tasks = tasks.set_column(tasks.column_names.index(name), tasks.schema.field(name), column)
    return tasks


def _places(column: pa.ChunkedArray, moved: pa.Table, name: str) -> NDArray[np.int64]:
    """Rows of `moved` with these values, -1 for those without one."""
    found = pc.index_in(flat(column), value_set=flat(moved[name]), skip_nulls=True)
    return numbers(found.fill_null(-1), np.int64)
