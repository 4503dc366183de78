"""Masks between the image, where Vouch keeps them, and the box, where FiftyOne does."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.boxes_masks import rle_of_crop
from tasks.reviews.verdicts import mask_trouble

Mask = NDArray[np.bool_]


def mask_in_box(rle_counts: bytes, box: Sequence[float], width: int, height: int) -> Mask | None:
    """Cut the mask of an image to the pixels of a box, as FiftyOne keeps it.

    Args:
        rle_counts: Compressed COCO RLE counts of the image's size.
        box: xyxy in pixels.
        width: Of the image.
        height: Of the image.

    Returns:
        (h, w) for the pixels that the box touches; None if none of them is set, or it is no mask of such an image:
        there is nothing to show.
    """
    from pycocotools import mask as mask_utils

    if mask_trouble(rle_counts, height, width):
        return None
    left, top, right, bottom = pixels_of(box, width, height)
    whole: NDArray[np.uint8] = mask_utils.decode({"size": [height, width], "counts": rle_counts})
    # By rows: the App reads no other order.
    crop: Mask = np.ascontiguousarray(whole[top:bottom, left:right], np.bool_)
    return crop if crop.any() else None


def rle_in_image(mask: Mask, box: Sequence[float], width: int, height: int) -> bytes | None:
    """Lay a mask that fills a box on the image: a pixel is set where the mask is, at its centre.

    Args:
        mask: (h, w), stretched over the box whatever its size, as FiftyOne shows it.
        box: xyxy in pixels, not empty.
        width: Of the image.
        height: Of the image.

    Returns:
        Compressed COCO RLE counts of the image's size; None if no pixel is set.
    """
    left, top, right, bottom = pixels_of(box, width, height)
    rows, columns = mask.shape
    if (rows, columns) == (bottom - top, right - left):
        crop = mask
    else:
        x0, y0, x1, y1 = box
        column = np.floor((np.arange(left, right) + 0.5 - x0) / (x1 - x0) * columns).astype(np.int64)
        row = np.floor((np.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * rows).astype(np.int64)
        crop = mask[np.ix_(np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1))]
    return rle_of_crop(crop, left, top, height, width) if crop.any() else None


def pixels_of(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels of an image that a box touches, one at least: left, top, right, bottom, the last two exclusive."""
    left = min(max(math.floor(box[0]), 0), width - 1)
    top = min(max(math.floor(box[1]), 0), height - 1)
    right = min(max(math.ceil(box[2]), left + 1), width)
    bottom = min(max(math.ceil(box[3]), top + 1), height)
    return left, top, right, bottom
