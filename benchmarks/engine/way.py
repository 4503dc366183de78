"""One side's work."""

from collections.abc import Callable
from typing import NamedTuple


class Way(NamedTuple):
    """A way to do some work on images."""

    images: int
    mode: str
    """fp32, TF32 or bf16: what its share of the device's peak is taken of."""
    work: Callable[[], object]
