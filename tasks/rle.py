"""Run-length encoding of masks as COCO does it: pixels counted down the columns, counts compressed."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_LONGEST_RUN: Final = 2**32 - 1
"""cocoapi keeps the pixels of a run in 32 bits."""
_MOST_DIGITS: Final = 7
"""Of a difference of two runs: 33 bits and a sign, five bits a digit; sums of so small numbers stay within 64 bits."""


def rle_of_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> bytes:
    """Compressed COCO RLE counts of a mask given by its runs; the bytes that pycocotools.mask.encode would give.

    Args:
        starts: (R,) first pixel of each run, counted down the columns (x * height + y), ascending.
        ends: (R,) pixel after each run; a run may begin where the one before it ends.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        The counts.
    """
    from pycocotools import mask as mask_utils

    apart = np.ones(len(starts) + 1, dtype=bool)
    apart[1:-1] = starts[1:] != ends[:-1]
    edges = np.stack([starts[apart[:-1]], ends[apart[1:]]], axis=1).reshape(-1)
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0 and len(counts) > 1:
        counts = counts[:-1]
    size = [height, width]
    compressed: bytes = mask_utils.frPyObjects({"size": size, "counts": counts.tolist()}, height, width)["counts"]
    return compressed


def rle_of_crop(crop: NDArray[np.bool_], left: int, top: int, height: int, width: int) -> bytes:
    """Compressed COCO RLE counts of a mask that is empty outside a crop; takes time and memory for the crop only.

    Args:
        crop: (h, w) part of the mask.
        left: Column of the mask where the crop begins.
        top: Row of the mask where the crop begins.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        The counts.
    """
    rows, columns = crop.shape
    # An empty row below ends every run within its column.
    padded = np.zeros((columns, rows + 1), dtype=np.int8)
    padded[:, :rows] = crop.T
    edges = np.flatnonzero(np.diff(padded.reshape(-1), prepend=np.int8(0)))
    column, row = np.divmod(edges, rows + 1)
    pixels = (left + column) * height + top + row
    return rle_of_runs(pixels[0::2], pixels[1::2], height, width)


def run_lengths(counts: bytes) -> NDArray[np.int64] | None:
    """Decode compressed COCO RLE counts that nobody checked: what is none is told, never read beyond.

    The encoding is rleToString's of common/maskApi.c in cocoapi: five bits a character, low ones first, from "0" on;
    0x20 says that more follow, 0x10 of the last one is the sign; from the fourth on a count is less the one two before.

    Args:
        counts: The bytes; some 60 bytes of memory are taken for each.

    Returns:
        (R,) pixels of each run, down the columns, the first one outside the mask; None if the bytes are no counts.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 0x20:
        return None
    ends = np.flatnonzero(digits & 0x20 == 0)
    starts = np.append(0, ends[:-1] + 1)
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _MOST_DIGITS:
        return None
    values = np.add.reduceat((digits & 0x1F) << (5 * places), starts)
    values -= np.where(digits[ends] & 0x10, 1 << (5 * (ends - starts + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values if values.min() >= 0 and values.max() <= _LONGEST_RUN else None


def is_rle(counts: bytes, height: int, width: int) -> bool:
    """Tell whether bytes are compressed COCO RLE counts of a mask of this size.

    Args:
        counts: The bytes.
        height: Rows of the mask.
        width: Columns of the mask.
    """
    runs = run_lengths(counts)
    return runs is not None and int(runs.sum()) == height * width


def rle_area(counts: bytes) -> int:
    """Pixels of a mask.

    Args:
        counts: Compressed COCO RLE counts, as run_lengths knows them.

    Raises:
        ValueError: They are none.
    """
    runs = run_lengths(counts)
    if runs is None:
        raise ValueError("not compressed COCO RLE counts")
    return int(runs[1::2].sum())
