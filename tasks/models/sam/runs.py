"""Describes masks that are given by their runs of pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.models.protocols import Floats
from tasks.rle import rles_of_runs


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The true pixels of M masks, of any sizes."""

    starts: NDArray[np.int64]
    """(R,) first pixel of each run, counted down the columns of its mask; ascending within a mask."""
    ends: NDArray[np.int64]
    """(R,) pixel after each run; a run may begin where the one before it ends."""
    masks: NDArray[np.int64]
    """(R,) which mask each run belongs to, ascending."""


def describe(runs: Runs, sizes: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.int64], Floats]:
    """Compress masks, and measure them.

    Args:
        runs: Of M masks.
        sizes: (M, 2) height and width of each.

    Returns:
        Compressed COCO RLE counts; (M,) areas in pixels; (M, 4) float32 xyxy around each mask in pixels, right and
        bottom exclusive, zeros for an empty mask.
    """
    count = len(sizes)
    each = np.bincount(runs.masks, minlength=count)
    counts = rles_of_runs(runs.starts, runs.ends, each, sizes.prod(axis=1))
    total = np.append(0, np.cumsum(runs.ends - runs.starts))
    last = np.cumsum(each)
    return counts, total[last] - total[last - each], _boxes(runs, each, sizes[:, 0])


def _boxes(runs: Runs, each: NDArray[np.int64], heights: NDArray[np.int64]) -> Floats:
    boxes = np.zeros((len(each), 4), dtype=np.float32)
    some = np.flatnonzero(each)
    if not len(some):
        return boxes
    height = heights[runs.masks]
    left, top = np.divmod(runs.starts, height)
    right, bottom = np.divmod(runs.ends - 1, height)
    # A run that goes on in the next column has the last row of one and the first row of the other.
    over = left != right
    firsts = (np.cumsum(each) - each)[some]
    boxes[some, 0] = np.minimum.reduceat(left, firsts)
    boxes[some, 1] = np.minimum.reduceat(np.where(over, 0, top), firsts)
    boxes[some, 2] = np.maximum.reduceat(right, firsts) + 1
    boxes[some, 3] = np.maximum.reduceat(np.where(over, height - 1, bottom), firsts) + 1
    return boxes
