"""Columns of tables as arrays, as the router's rules read them."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def flat(column: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """One array of a chunked column."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def floats(column: Any) -> NDArray[np.float32]:  # noqa: ANN401 - pyarrow has no types
    """A column as float32, null as NaN."""
    return np.asarray(flat(column).cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
