"""Says what is wrong with the mask of a verdict, which may come from anywhere."""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.reviews import MOST_RLE_BYTES
from tasks.boxes_masks import run_lengths

_DIGITS: Final = r"^(?:[P-o]{0,6}[0-O])+\z"
"""Numbers of compressed COCO RLE counts: see tasks.boxes_masks.run_lengths."""


def mask_trouble(counts: bytes, height: int | None = None, width: int | None = None) -> str:
    """Say why bytes are no mask of an image; empty if they are one.

    Args:
        counts: Compressed COCO RLE counts.
        height: Rows of the image; None where its size is unknown.
        width: Columns of the image.
    """
    if len(counts) > MOST_RLE_BYTES:
        return f"the mask has {len(counts):,} bytes; smooth its edge until it has up to {MOST_RLE_BYTES:,}"
    runs = run_lengths(counts)
    if runs is None:
        return "the mask is no compressed COCO RLE; write the counts that pycocotools.mask.encode gives"
    if not runs[1::2].any():
        return "the mask has no pixel; leave rle_counts empty where it needs no correction"
    pixels = int(runs.sum())
    if height is not None and width is not None and pixels != height * width:
        return f"the mask is of {pixels:,} pixels, its image of {width} x {height}; draw it in the size of the image"
    return ""


def looks_like_rle(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of masks whether they are bounded and made of numbers, or null: quick, without a look at the numbers."""
    bounded = pc.less_equal(pc.binary_length(column), MOST_RLE_BYTES)
    return pc.and_(bounded, pc.match_substring_regex(column, _DIGITS)).fill_null(True)
