"""Columns of per-label scalars that grow image by image."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Column:
    """One growing array; its bytes lie in one buffer, so that many small additions cost no memory of their own."""

    def __init__(self, dtype: DTypeLike) -> None:
        """Begin empty."""
        self._dtype = np.dtype(dtype)
        self._bytes = bytearray()

    def extend(self, values: NDArray[Any]) -> None:
        """Append (N,) values."""
        self._bytes += np.ascontiguousarray(values, self._dtype).tobytes()

    def array(self) -> NDArray[Any]:
        """All values, (N,)."""
        return np.frombuffer(bytes(self._bytes), self._dtype)
