"""Columns of Arrow tables as numpy arrays."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from schemas.tables import BOX


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
