"""Converts every pixel format that a file may have to 8-bit RGB, by stated rules."""

from typing import Final

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin, TiffImagePlugin

_WHITE: Final = (255, 255, 255)
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode RGB.

    - Grey and 1-bit: the value goes to all three channels.
    - Palette: looked up.
    - Alpha, also of a palette or of one transparent colour: composited on white; an alpha channel that is zero
      everywhere says nothing and is dropped.
    - CMYK: R = 255 (1 - C)(1 - K) and so on; YCCK likewise. JPEGs with Adobe's marker hold the inverse, others do not.
    - 16 bits a sample: the high byte (12 bits: the high 8), for grey as for colour.
    - 32-bit integers and floats, which have no fixed range: the image's own finite least to greatest value become 0 to
      255; what is not finite becomes 0; an image of one value is black.
    - YCbCr, HSV: converted. LAB and others: refused.
    - Colour profiles (ICC) are ignored, as they were when the models were trained.

    Args:
        image: A loaded Pillow image; its pixels are not changed.

    Returns:
        An image of mode RGB and equal size.

    Raises:
        ValueError: There is no rule for its mode.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray(_high_byte(image)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image, np.float64))).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return _on_white(image)
    if image.mode == "CMYK" and isinstance(image, JpegImagePlugin.JpegImageFile) and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for one of Adobe's.
        return ImageChops.invert(image).convert("RGB")
    if image.mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return image if image.mode == "RGB" else image.convert("RGB")
    raise ValueError(f"pixels of mode {image.mode} cannot be converted")


def _high_byte(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    values = np.asarray(image)
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow leaves these two to its callers for 16-bit grey.
        bits = int(image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0])
        inverted = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    high = (values >> max(bits - 8, 0)).astype(np.uint8)
    return np.asarray(255 - high if inverted else high, np.uint8)


def _stretched(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    least, greatest = values[finite].min(), values[finite].max()
    # Halved before subtracting: the span of the largest floats would overflow.
    span = greatest / 2 - least / 2
    if span == 0:
        return np.zeros(values.shape, np.uint8)
    share = (np.where(finite, values, least) / 2 - least / 2) / span
    return np.asarray(np.where(finite, np.rint(share * 255), 0), np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (0, 0):
        return rgba.convert("RGB")
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(rgba.convert("RGB"), mask=alpha)
    return canvas
