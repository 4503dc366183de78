"""Decodes one image file into upright RGB pixels, or says why it cannot."""

import hashlib
import io
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from schemas.records import Failed
from tasks.acquire.content import mislabelled, sniff
from tasks.acquire.rgb import to_rgb
from tasks.models.registry import Pixels

# The classes themselves, not Image.open: it warns or raises by a process-wide pixel limit, and a JPEG with a second
# picture inside comes out of it as another format.
_READERS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONGEST_REASON: Final = 200

VERSION: Final = 1
"""Raised whenever the same file could become other pixels; results depend on it."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """One upright image and what its file was."""

    pixels: Pixels = field(repr=False)
    """(H, W, 3) uint8 RGB, EXIF-oriented, C-contiguous."""
    sha256: str
    """Hex of SHA-256 over the file's bytes."""
    format: str
    """JPEG, PNG, WEBP, TIFF or BMP."""
    mode: str
    """Pillow's mode of the file, before conversion: RGB, L, P, CMYK, I;16 ..."""
    orientation: int
    """EXIF orientation 1..8 that was undone; 1 when the file names none or an impossible one."""


def decode(key: str, data: bytes, max_pixels: int) -> DecodedImage | Failed:
    """Turn a file's bytes into upright RGB pixels.

    JPEG, PNG, WebP, TIFF and BMP are told by their content. A name that claims another image format is mislabelled and
    fails; a name that claims none is fine. Of several frames or pages the first is taken. The EXIF orientation is
    applied exactly once. `to_rgb` states how every pixel format becomes RGB.

    Args:
        key: The object's key, for its extension.
        data: The whole file. It is not trusted.
        max_pixels: Most pixels; compared with the header's size before anything is decoded. For TIFF and WebP
            Pillow's own limit of 179 million holds beside it.

    Returns:
        The image, or the reason why there is none. Nothing is raised, whatever the bytes.
    """
    if not data:
        return _failed("the file has zero bytes")
    found = sniff(data)
    if found not in _READERS:
        return _failed(f"no supported image: the content is {found}; supported are {', '.join(_READERS)}")
    claimed = mislabelled(key, found)
    if claimed is not None:
        return _failed(f"mislabelled: the content is {found}, the name ends in {claimed}")
    try:
        return _decode(found, data, max_pixels)
    except Image.DecompressionBombError as error:
        return _failed(f"too many pixels: {error}")
    except Exception as error:
        return _failed(f"damaged or unsupported {found}: {error or type(error).__name__}")


def _decode(found: str, data: bytes, max_pixels: int) -> DecodedImage | Failed:
    with _READERS[found](io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > max_pixels:
            return _failed(f"too many pixels: {width} x {height} is more than source.max_pixels, {max_pixels}")
        mode = image.mode
        # TIFF is turned while it loads, and then forgets its tag; a PNG may name its orientation after the pixels.
        turned_by_reader = found == "TIFF"
        orientation = _orientation(image) if turned_by_reader else 1
        image.load()
        pixels = to_rgb(image)
        if not turned_by_reader:
            orientation = _orientation(image)
            if orientation in _UPRIGHT:
                pixels = pixels.transpose(_UPRIGHT[orientation])
    return DecodedImage(np.array(pixels), hashlib.sha256(data).hexdigest(), found, mode, orientation)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if value in _UPRIGHT else 1


def _failed(reason: str) -> Failed:
    line = " ".join(reason.split())
    return Failed(step="acquire", reason=line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "...")
