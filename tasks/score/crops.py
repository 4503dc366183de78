"""Cuts the square around a box out of an image."""

import math
from typing import Final

import numpy as np

from tasks.models.registry import Floats, Pixels

# Fewer pixels than this hold no picture to judge; the surroundings are taken in.
LEAST_SIDE: Final = 16


def crop(image: Pixels, box: Floats, context: float) -> Pixels:
    """Cut out a box with its surroundings, unmasked.

    The cut is a square about the box's centre whose side is `context` times the box's longer side, and at least 16
    pixels: CLIP's preprocessing keeps the central square of what it is given, so anything else would lose the ends of
    a long object. Edges are rounded to whole pixels. A square that leaves the image is shifted back into it; where
    it is larger than the image it is cut to it, and only then is it no square.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) xyxy in pixels of the image; it may reach outside or have no area.
        context: At least 1.

    Returns:
        (h, w, 3) view of the image, 1 <= h <= H, 1 <= w <= W.

    Raises:
        ValueError: A coordinate is not finite.
    """
    if not np.isfinite(box).all():
        raise ValueError("a box has a coordinate that is not finite")
    x0, y0, x1, y1 = (float(value) for value in box)
    side = max(max(abs(x1 - x0), abs(y1 - y0)) * context, LEAST_SIDE)
    left, right = span((x0 + x1) / 2, side, image.shape[1])
    top, bottom = span((y0 + y1) / 2, side, image.shape[0])
    return image[top:bottom, left:right]


def span(centre: float, side: float, length: int) -> tuple[int, int]:
    """First pixel and the one after the last of a side about a centre, shifted into [0, length); pixels."""
    count = min(math.ceil(side), length)
    first = round(centre - count / 2)
    first = min(max(first, 0), length - count)
    return first, first + count
