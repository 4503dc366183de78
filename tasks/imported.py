"""Labels that were made elsewhere, as the workspace keeps them for a run: `vouch import` writes them, shards read them.

imports/<run>/<hash>.parquet has the labels, sorted by the key of their image; imports/<run>.json says which counts.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from vouch_labels.schemas.errors import ObjectMissingError, StoreError
from vouch_labels.schemas.records import Imported
from vouch_labels.schemas.tables import IMPORTED
from vouch_labels.tasks.arrow import boxes_of, numbers, rows_of_keys
from vouch_labels.tasks.detect import Given
from vouch_labels.tasks.models.registry import Floats
from vouch_labels.tasks.store.store import Store

_ROW_GROUP = 50_000
"""Labels that are read together; a shard reads the groups that its keys lie in."""


def imported_of(workspace: Store, run: str) -> Imported | None:
    """Say what was imported for a run; None: nothing.

    Raises:
        StoreError: The record is damaged.
    """
    key = f"imports/{run}.json"
    try:
        return Imported.model_validate_json(workspace.get(key).data)
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; import the labels again") from None


def write_imported(workspace: Store, run: str, labels: pa.Table, record: Imported) -> Imported:
    """Make labels, a table of schema IMPORTED, those that count for a run; equal labels give equal bytes.

    Returns:
        The record with the hash of the table.
    """
    ordered = labels.sort_by([("key", "ascending"), ("name", "ascending")])
    sink = pa.BufferOutputStream()
    pq.write_table(ordered, sink, row_group_size=_ROW_GROUP, compression="zstd")
    data = sink.getvalue().to_pybytes()
    written = record.model_copy(update={"table": hashlib.sha256(data).hexdigest()})
    workspace.put(_table_key(run, written.table), data)
    workspace.put(f"imports/{run}.json", written.model_dump_json(indent=1).encode())
    return written


def remove_imported(workspace: Store, run: str) -> None:
    """Have no imported labels count for a run any more."""
    workspace.delete(f"imports/{run}.json")


def read_given(
    workspace: Store, run: str, table: str, keys: Sequence[str], class_names: Sequence[str]
) -> dict[str, Given]:
    """Read the labels that were imported for some images: key -> its labels, of classes that the campaign has.

    An image that the imported file names without a label has none; one that it does not name is not among the keys.

    Raises:
        StoreError: The table is missing or damaged.
    """
    key = _table_key(run, table)
    try:
        with workspace.open_reader(key) as file:
            rows = pq.read_table(file, schema=IMPORTED, filters=pc.is_in(pc.field("key"), pa.array(keys, pa.string())))
    except ObjectMissingError:
        raise StoreError(f"{workspace.uri}/{key} is missing; import the labels again") from None
    except pa.ArrowInvalid as error:
        raise StoreError(f"{workspace.uri}/{key} is damaged ({error}); import the labels again") from None
    place = {name: number for number, name in enumerate(class_names)}
    return {
        image: _given(rows.slice(some.start, some.stop - some.start), place)
        for image, some in rows_of_keys(rows).items()
    }


def _given(rows: pa.Table, place: dict[str, int]) -> Given:
    # A row without a class says that the image was looked at.
    rows = rows.filter(pc.is_in(rows["class_name"], pa.array(list(place), pa.string())))
    scores: Floats = numbers(pc.fill_null(rows["score"], float("nan")), np.float32)
    return Given(
        boxes=boxes_of(rows),
        class_indices=np.array([place[name] for name in rows["class_name"].to_pylist()], np.int64),
        scores=scores,
        names=rows["name"].to_pylist(),
    )


def _table_key(run: str, table: str) -> str:
    return f"imports/{run}/{table}.parquet"
