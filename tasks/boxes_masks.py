"""Computes with boxes ((N, 4) xyxy in pixels, right and bottom exclusive) and with run-length encoded masks.

Masks are encoded as COCO does it: pixels counted down the columns, counts compressed.
"""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]

_LONGER: Final = np.int64(1) << (5 * np.arange(1, 12) - 1)
"""Magnitudes from which a count takes one character more."""

_LONGEST_RUN: Final = 2**32 - 1
"""cocoapi keeps the pixels of a run in 32 bits."""
_MOST_DIGITS: Final = 7
"""Of a difference of two runs: 33 bits and a sign, five bits a digit; sums of so small numbers stay within 64 bits."""


def box_area(boxes: Boxes) -> NDArray[np.float64]:
    """Areas of (N, 4) boxes in square pixels; 0 for boxes turned inside out."""
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas


def box_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """(N, M) intersection over union of (N, 4) with (M, 4) boxes; 0 where both boxes are empty."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return _ratio(low, high, box_area(first)[:, None], box_area(second)[None, :])


def paired_box_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """(N,) intersection over union of box i of one set with box i of the other; 0 where both boxes are empty."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    return _ratio(low, high, box_area(first), box_area(second))


def clip_boxes(boxes: Boxes, width: int, height: int) -> Boxes:
    """(N, 4) boxes cut to an image of width x height pixels, as float32."""
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, 0, limits).astype(np.float32)


def _ratio(
    low: Boxes, high: Boxes, first_area: NDArray[np.float64], second_area: NDArray[np.float64]
) -> NDArray[np.float64]:
    sides = np.maximum(high.astype(np.float64) - low, 0)
    common = sides[..., 0] * sides[..., 1]
    union = first_area + second_area - common
    iou: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    return np.clip(iou, 0, 1)


def rle_of_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> bytes:
    """Compressed COCO RLE counts of a mask given by its runs; the bytes that pycocotools.mask.encode would give.

    Args:
        starts: (R,) first pixel of each run, counted down the columns (x * height + y), ascending.
        ends: (R,) pixel after each run; a run may begin where the one before it ends.
        height: Rows of the mask.
        width: Columns of the mask.
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


def rles_of_runs(
    starts: NDArray[np.int64], ends: NDArray[np.int64], runs: NDArray[np.int64], pixels: NDArray[np.int64]
) -> list[bytes]:
    """As `rle_of_runs`, for many masks at once.

    Args:
        starts: (R,) first pixel of each run, those of the first mask first.
        ends: (R,) pixel after each run.
        runs: (M,) how many runs each mask has, none included.
        pixels: (M,) height times width of each mask.
    """
    mask = np.repeat(np.arange(len(runs)), runs)
    joined = np.zeros(len(starts) + 1, dtype=bool)
    joined[1:-1] = (starts[1:] == ends[:-1]) & (mask[1:] == mask[:-1])
    first, last = ~joined[:-1], ~joined[1:]
    kept = np.bincount(mask[first], minlength=len(runs))
    # Each mask's edges stand between 0 and its number of pixels.
    bounds = np.zeros(2 * int(kept.sum()) + 2 * len(runs), dtype=np.int64)
    lengths = 2 * kept + 2
    closing = np.cumsum(lengths) - 1
    inner = np.ones(len(bounds), dtype=bool)
    inner[closing] = inner[closing - lengths + 1] = False
    bounds[inner] = np.stack([starts[first], ends[last]], axis=1).reshape(-1)
    bounds[closing] = pixels
    counts = np.diff(bounds)
    wanted = np.ones(len(bounds), dtype=bool)
    # Between masks there is no count; nor at the end of a mask whose last pixel is true.
    wanted[closing] = False
    empty = (bounds[closing] == bounds[closing - 1]) & (lengths > 2)
    wanted[closing[empty] - 1] = False
    return compress_counts(counts[wanted[:-1]], lengths - 1 - empty)


def compress_counts(counts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[bytes]:
    """Compress the counts of many masks as rleToString of common/maskApi.c in cocoapi does; see `run_lengths`.

    `counts` (S,) are those of the first mask first; `lengths` (M,) are how many each mask has, at least one.
    """
    firsts = np.cumsum(lengths) - lengths
    later = np.flatnonzero(np.arange(len(counts)) - np.repeat(firsts, lengths) > 2)
    values = counts.astype(np.int64)
    values[later] -= counts[later - 2]
    sizes = 1 + np.searchsorted(_LONGER, np.where(values < 0, ~values, values), side="right")
    places = np.cumsum(sizes) - sizes
    characters = np.empty(int(sizes.sum()), dtype=np.uint8)
    for digit in range(int(sizes.max(initial=0))):
        some = np.flatnonzero(sizes > digit)
        more = np.where(sizes[some] > digit + 1, 0x20, 0)
        characters[places[some] + digit] = ((values[some] >> (5 * digit) & 0x1F) | more) + 48
    text = characters.tobytes()
    cuts = [*places[firsts].tolist(), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


def rle_of_crop(crop: NDArray[np.bool_], left: int, top: int, height: int, width: int) -> bytes:
    """Compressed COCO RLE counts of a mask that is empty outside a crop; takes time and memory for the crop only.

    The (h, w) crop begins at a column `left` and a row `top` of a mask of height x width.
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
    """Decode compressed COCO RLE counts from an untrusted source; bytes that are none are never read beyond.

    The encoding is rleToString's of common/maskApi.c in cocoapi: five bits a character, low ones first, from "0" on;
    0x20 says that more follow, 0x10 of the last one is the sign; from the fourth on a count is less the one two before.
    Some 60 bytes of memory are taken for each.

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
    """Whether bytes are compressed COCO RLE counts of a mask of this size."""
    runs = run_lengths(counts)
    return runs is not None and int(runs.sum()) == height * width


def rle_area(counts: bytes) -> int:
    """Pixels of a mask given as compressed COCO RLE counts.

    Raises:
        ValueError: They are none.
    """
    runs = run_lengths(counts)
    if runs is None:
        raise ValueError("not compressed COCO RLE counts")
    return int(runs[1::2].sum())
