"""Keeps polygons small, and hands them to pycocotools within bounds: native code checks nothing.

pycocotools rounds coordinates to fifths of a pixel before it does anything else (rleFrPoly in common/maskApi.c of
cocoapi). Kept are these whole numbers, so that masks are exactly its own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.tasks.boxes_masks import compress_counts
from vouch_labels.tasks.matching import Rle

MOST_OUTLINE: Final = 1 << 22
"""Fifths of a pixel of a polygon's outline. pycocotools takes 16 bytes for each; a mask of 5 megapixels that is a
checkerboard of single ones has no longer one."""

_SCALE: Final = 5
_BETWEEN: Final = {2: np.iinfo(np.int16).min, 4: np.iinfo(np.int32).min}
"""What stands between two polygons, by bytes of a number."""


class OutlineError(Exception):
    """An outline is too long to be one."""


def pack_polygons(polygons: Sequence[NDArray[np.float64]]) -> bytes:
    """Pack polygons, flat x, y, x, y ... each, up to 1e8: the first byte says how many bytes a number takes."""
    # As C does it: towards zero.
    fifths = [np.trunc(_SCALE * polygon + 0.5).astype(np.int64) for polygon in polygons]
    largest = max(int(np.abs(numbers).max()) for numbers in fifths)
    width = 2 if largest < -_BETWEEN[2] else 4
    parts = [fifths[0]]
    for numbers in fifths[1:]:
        parts += [np.array([_BETWEEN[width]]), numbers]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return bytes([width]) + whole.astype(np.int16 if width == 2 else np.int32).tobytes()


def unpack_polygons(packed: bytes) -> list[NDArray[np.float64]]:
    """Give the polygons back, (P, 2) each, so that pycocotools rounds them to what was kept."""
    width = packed[0]
    numbers = np.frombuffer(packed, np.int16 if width == 2 else np.int32, offset=1).astype(np.int64)
    cuts = np.flatnonzero(numbers == _BETWEEN[width])
    edges = [-1, *cuts.tolist(), len(numbers)]
    # Below zero, C's rounding needs a hair less.
    return [
        ((part - 0.75 * (part < 0)) / _SCALE).reshape(-1, 2)
        for part in (numbers[start + 1 : end] for start, end in pairwise(edges))
    ]


def rle_of_polygons(packed: bytes, size: tuple[int, int]) -> Rle:
    """Draw packed polygons as one mask of height x width pixels.

    A polygon that reaches further out of the image than the image is wide or high is cut there, where nothing is seen.

    Raises:
        OutlineError: An outline is longer than MOST_OUTLINE allows.
    """
    from pycocotools import mask as mask_utils

    height, width = size
    parts = []
    for polygon in unpack_polygons(packed):
        points = _cut(_cut(polygon, 0, -width, 2 * width), 1, -height, 2 * height)
        if len(points) < 3:
            continue
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
        outline = int(_SCALE * steps.sum()) + 2 * len(points)
        if outline > MOST_OUTLINE:
            raise OutlineError(f"an outline of {outline // _SCALE:,} pixels")
        parts.append(points.reshape(-1).tolist())
    if not parts:
        empty = compress_counts(np.array([height * width], np.int64), np.array([1], np.int64))[0]
        return {"size": [height, width], "counts": empty}
    drawn: Rle = mask_utils.merge(mask_utils.frPyObjects(parts, height, width))
    return drawn


def _cut(points: NDArray[np.float64], axis: int, low: float, high: float) -> NDArray[np.float64]:
    """Cut a (P, 2) polygon to a strip (I. E. Sutherland, G. W. Hodgman, CACM 17, 1974); what is within it stays."""
    for limit, sign in ((low, -1), (high, 1)):
        inside = sign * points[:, axis] <= sign * limit
        if inside.all():
            continue
        after, inside_after = np.roll(points, -1, axis=0), np.roll(inside, -1)
        crosses = inside != inside_after
        span = np.where(crosses, after[:, axis] - points[:, axis], 1)
        met = points + ((limit - points[:, axis]) / span)[:, None] * (after - points)
        met[:, axis] = limit
        kept = np.stack([inside, crosses], axis=1).reshape(-1)
        points = np.stack([points, met], axis=1).reshape(-1, 2)[kept]
    return points
