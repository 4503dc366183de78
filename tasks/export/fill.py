"""Fills regions of images with grey, for trainers that cannot be told to ignore them."""

import io
from collections.abc import Sequence
from typing import Any, Final

from PIL import Image

from vouch_labels.schemas.records import Failed
from vouch_labels.tasks.decode import decode

GREY: Final = 114
"""The grey by which trainers fill the borders of images (YOLO), so that it means nothing to them."""

_WRITERS: Final[dict[str, dict[str, Any]]] = {
    # Written once more: 4:4:4 and quality 95 change a pixel by some levels of 255.
    "JPEG": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "PNG": {"format": "PNG"},
    "WEBP": {"format": "WEBP", "lossless": True},
    "TIFF": {"format": "TIFF", "compression": "tiff_deflate"},
    "BMP": {"format": "BMP"},
    "JPEG 2000": {"format": "JPEG2000", "irreversible": False},
}


class CannotFillError(Exception):
    """Why an image cannot be written again."""


def filled(key: str, data: bytes, size: tuple[int, int], regions: Sequence[tuple[int, int, int, int]]) -> bytes:
    """Write an image again, upright and with regions in grey; in the format of its content, without loss but for JPEG.

    Other pixels are those that the models saw: 8-bit RGB, without an EXIF orientation.

    Args:
        key: Its name, for messages.
        data: The file.
        size: Width and height of the upright image, in pixels.
        regions: xyxy in its pixels, right and bottom exclusive.

    Raises:
        CannotFillError: It cannot be decoded, or its format is one that is only read.
    """
    image = decode(key, data, size[0] * size[1])
    if isinstance(image, Failed):
        raise CannotFillError(image.reason)
    if image.format not in _WRITERS:
        raise CannotFillError(f"regions of it cannot be filled, since {image.format} is not written; use drop_image")
    pixels = image.pixels.copy()
    for x0, y0, x1, y1 in regions:
        pixels[y0:y1, x0:x1] = GREY
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, **_WRITERS[image.format])
    return out.getvalue()
