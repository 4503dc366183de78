"""Converts columns of Arrow tables to numpy arrays, and numbers distinct values to compare rows without a loop."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike, NDArray

from vouch_labels.schemas.tables import BOX


def flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array of a column, whatever its chunks."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def numbers(column: pa.Array | pa.ChunkedArray, dtype: DTypeLike) -> NDArray[Any]:
    """A column of numbers or booleans, (N,) of this dtype; null is NaN, which only a floating dtype can say."""
    # A chunked column takes no such argument, and copies whenever it must.
    plain = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return np.asarray(plain, dtype)


def boxes_of(table: pa.Table) -> NDArray[np.float32]:
    """The columns of BOX, (N, 4) xyxy; null is NaN."""
    return np.stack([numbers(table[side], np.float32) for side in BOX], axis=1)


def with_names(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """A table with other names in its column class_name, where they are among `names`."""
    if not names:
        return table
    column = [None if name is None else names.get(name, name) for name in table["class_name"].to_pylist()]
    place = table.schema.get_field_index("class_name")
    return table.set_column(place, table.schema.field(place), pa.array(column, pa.string()))


def first_places(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Find the first row with the same values in some columns, (N,); null equals null, and NaN equals NaN."""
    if table.num_rows < 2:
        return np.arange(table.num_rows)
    # Not at the top: the models' loop reads tables too, and Polars takes some 50 MB.
    import polars as pl

    frame = pl.DataFrame(table.select(names)).with_row_index("row")
    return numbers(frame.select(pl.col("row").min().over(names)).to_series().to_arrow(), np.int64)


def row_hashes(table: pa.Table, names: Sequence[str]) -> NDArray[np.uint64]:
    """Hash some columns of each row to 64 bits, (N,), alike in every table of one process; null is like null.

    Of twenty million different rows two are taken for one with a chance of 1 in 90,000 (n^2 / 2^65).
    """
    import polars as pl

    return numbers(pl.DataFrame(table.select(names)).hash_rows(seed=0).to_arrow(), np.uint64)


def first_rows(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Find the first row of each combination of values in some columns, ascending."""
    return np.flatnonzero(first_places(table, names) == np.arange(table.num_rows))


def rows_of_keys(table: pa.Table) -> dict[str, slice]:
    """Find the rows of each value in the column `key`, where equal ones stand together."""
    rows, start = {}, 0
    for key, group in groupby(table["key"].to_pylist()):
        end = start + sum(1 for _ in group)
        rows[key], start = slice(start, end), end
    return rows


def distinct(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Keep the first row of each combination of values in some columns, in order."""
    return table.take(pa.array(first_rows(table, names), pa.int64()))


def places_in(wanted: pa.Array | pa.ChunkedArray, ids: pa.Array) -> NDArray[np.int64]:
    """Find values among ids, (m,): the first place of each, -1 for those that are not there and for null.

    The table for look-up is made of the fewer ones: the labels of a plan are few, those of a run a million.
    """
    sought = flat(wanted)
    if len(sought) > len(ids):
        return numbers(pc.index_in(sought, value_set=ids, skip_nulls=True).fill_null(-1), np.int64)
    coded = sought.dictionary_encode()
    found = pc.index_in(ids, value_set=coded.dictionary, skip_nulls=True)
    rows = np.flatnonzero(numbers(found.is_valid(), np.bool_))
    # One entry more, which -1 finds.
    place = np.full(len(coded.dictionary) + 1, -1, np.int64)
    # Last first, so that of equal ids the first one stays.
    place[numbers(found.drop_null(), np.int64)[::-1]] = rows[::-1]
    return np.asarray(place[numbers(coded.indices.fill_null(-1), np.int64)], np.int64)


def flags_of(wanted: pa.Array | pa.ChunkedArray, ids: pa.Array, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say of values what is flagged (N,) of ids (N,) that are equal, (m,); False for those that are not there."""
    # One entry more, which -1 finds.
    return np.append(flags, False)[places_in(wanted, ids)]
