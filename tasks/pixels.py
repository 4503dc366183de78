"""Converts images of every pixel format to upright 8-bit RGB, a tile at a time, so that no second copy is made."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vouch_labels.tasks.models.registry import Pixels

Values = NDArray[Any]
Box = tuple[int, int, int, int]
Tiles = Callable[[Box], Values]
"""Gives the (H, W, C) values within left, top, right and bottom."""
Open = Callable[[], ImageFile.ImageFile]

_TILE: Final = 1 << 18
"""Pixels that are converted at a time; they stay in the processor's cache."""
_SIDE: Final = 512
"""Columns of a tile that is turned."""
_WHITE: Final = (255, 255, 255)
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0

_DEPTHS: Final = (8, 10, 12, 14, 16)
"""Bits a sample of what cameras and scanners write into 16."""
_FLAT: Final = 8
"""Values that fill less than this part of what their bits can hold are stretched."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STORED: Final[dict[int, Callable[[Values], Values]]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF orientation -> the view of the upright picture that has the file's rows and columns."""
ORIENTATIONS: Final = tuple(_STORED)
_TURNED: Final = 5
"""From this orientation on rows and columns change places."""

_ALPHA: Final = ("RGBA", "RGBa", "LA", "La", "PA")

# Pillow takes the high byte of 16-bit colour; asked for samples of the other byte order, it takes the low one.
_NATIVE: Final = "L" if sys.byteorder == "little" else "B"
_LOW: Final = {
    f"{mode};16{order}": f"{mode};16{'B' if (_NATIVE if order == 'N' else order) == 'L' else 'L'}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order in "LBN"
}
# Grey and alpha of 16 bits have four bytes a pixel: as if they were four channels, all of them are there at once.
_GREY_ALPHA: Final = "LA;16B"


def is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is opened and not yet loaded has 16-bit colour, which may have to be read twice."""
    return _rawmode(image) in _LOW


def read_upright(image: ImageFile.ImageFile, reopen: Open, orientation: Callable[[], int]) -> tuple[Pixels, int]:
    """Load an opened image and convert it to RGB.

    - Grey and 1-bit: the value goes to all three channels.
    - Palette: looked up.
    - Alpha, also of a palette or of one transparent colour: composited on white; an alpha channel that is zero
      everywhere says nothing and is dropped.
    - CMYK: R = 255 (1 - C)(1 - K) and so on; YCCK likewise. JPEGs with Adobe's marker hold the inverse, others do not.
    - 16 bits a sample in PNG and TIFF, grey or colour: the high 8 of the bits in use. These are the fewest of 8, 10,
      12, 14 and 16 that hold the image's greatest value (a TIFF of 12 bits says so itself), so that an image written
      from fewer bits looks like its 8-bit twin. Where the values fill less than an eighth of what these bits hold, they
      are stretched instead: the least to 0, the greatest to 255. All colours go together, alpha is left out.
    - 16 bits a sample of CMYK, of premultiplied alpha and in other formats: the high byte.
    - 32-bit integers and floats, which have no fixed range: the image's own finite least to greatest value become 0 to
      255; what is not finite becomes 0; an image of one value is black.
    - YCbCr, HSV: converted. LAB and others: refused.
    - Colour profiles (ICC) are ignored, as they were when the models were trained.

    The image is at the frame that is wanted, and not loaded yet; `orientation` gives the EXIF orientation to undo, 1 to
    8, and is asked when it is loaded.

    Returns:
        (H, W, 3) uint8, C-contiguous, and the orientation that was undone.

    Raises:
        ValueError: There is no rule for its mode.
    """
    rawmode = _rawmode(image)
    if rawmode == _GREY_ALPHA:
        _set_rawmode(image, "RGBA")
    if isinstance(image, WebPImageFile):
        loaded: Image.Image = _webp_frame(image)
    else:
        image.load()
        loaded = image
    turned = orientation()
    width, height = image.size
    pixels = np.empty((width, height, 3) if turned >= _TURNED else (height, width, 3), np.uint8)
    stored = _STORED[turned](pixels)
    tiles = _tiles(loaded, rawmode, reopen)
    for box in _boxes(image.size, _SIDE if turned in _TURNS else width):
        left, top, right, bottom = box
        tile = tiles(box)
        if turned in _TURNS:
            # Pillow turns a tile faster than numpy writes along columns; its rows and ours then lie alike.
            grey = tile.shape[2] == 1
            tile = np.asarray(Image.fromarray(tile[..., 0] if grey else tile).transpose(_TURNS[turned]))
            tile = _STORED[turned](tile[..., None] if grey else tile)
        stored[top:bottom, left:right] = tile
    return pixels, turned


def _webp_frame(image: WebPImageFile) -> Image.Image:
    """The first frame, of mode RGBX or RGBA.

    `load` keeps the decoder's two canvases and the frame's bytes beside the image, 16 bytes a pixel together; here the
    bytes are the image, and the decoder goes.
    """
    decoder, image._decoder = image._decoder, None
    frame = decoder.get_next()
    if frame is None:
        raise OSError("the frame cannot be decoded")
    mode = image.rawmode
    return Image.frombuffer(mode, image.size, frame[0], "raw", mode, 0, 1)


def _tiles(image: Image.Image, rawmode: str, reopen: Open) -> Tiles:
    """Choose by which rule the image's tiles become RGB, C 3, or grey, C 1."""
    if rawmode == _GREY_ALPHA:
        return _grey_alpha(image)
    if rawmode in _LOW:
        # Where the high bytes fill enough of their range they are what the rule gives, whatever the low ones are.
        least, greatest = _extent(lambda box: _array(image, box)[..., :3], image.size)
        if greatest < 1 << (_DEPTHS[-2] - 8) or greatest - least <= (1 << 8) // _FLAT:
            low = reopen()
            _set_rawmode(low, _LOW[rawmode])
            low.load()
            return _wide(image, low)
    if image.mode.startswith("I;16"):
        return _grey(image)
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        return _on_white(lambda box: _cut(image, box).convert("RGBA"), image.size)
    if image.mode == "CMYK" and isinstance(image, JpegImageFile) and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for one of Adobe's.
        return lambda box: np.asarray(ImageChops.invert(_cut(image, box)).convert("RGB"))
    if image.mode == "RGB":
        return lambda box: np.asarray(_cut(image, box))
    if image.mode in ("L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return lambda box: np.asarray(_cut(image, box).convert("RGB"))
    raise ValueError(f"pixels of mode {image.mode} cannot be converted")


def _boxes(size: tuple[int, int], most_columns: int = _TILE) -> Iterator[Box]:
    width, height = size
    columns = min(width, most_columns, _TILE)
    rows = max(1, _TILE // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the file's samples lie, in Pillow's words, where it reads them so; empty elsewhere."""
    if not isinstance(image, PngImageFile | TiffImageFile):
        return ""
    modes = {tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0] for tile in image.tile}
    return str(modes.pop()) if len(modes) == 1 else ""


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    image.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *(tile.args or ())[1:]))
        for tile in image.tile
    ]


def _cut(image: Image.Image, box: Box) -> Image.Image:
    return image if box == (0, 0, *image.size) else image.crop(box)


def _array(image: Image.Image, box: Box) -> Values:
    values = np.asarray(_cut(image, box))
    return values[..., None] if values.ndim == 2 else values


def _extent(tiles: Tiles, size: tuple[int, int]) -> tuple[int, int]:
    """The least and the greatest of all values."""
    extents = [(int(values.min()), int(values.max())) for values in map(tiles, _boxes(size))]
    return min(least for least, _ in extents), max(greatest for _, greatest in extents)


def _to_8_bits(extent: tuple[int, int], bits: int | None = None) -> Callable[[Values], Values]:
    """Make the function that turns (..., C) uint16 into uint8 by the rule for 16 bits a sample."""
    least, greatest = extent
    used = bits or next(depth for depth in _DEPTHS if greatest < 1 << depth)
    span = greatest - least
    if span * _FLAT >= 1 << used:
        return lambda values: (values >> (used - 8)).astype(np.uint8)
    if span == 0:
        return lambda values: np.zeros(values.shape, np.uint8)
    return lambda values: (((values.astype(np.uint32) - least) * 255 + span // 2) // span).astype(np.uint8)


def _grey(image: Image.Image) -> Tiles:
    tiles = partial(_array, image)
    bits, inverted = None, False
    if isinstance(image, TiffImageFile):
        # Pillow leaves these two to its callers for 16-bit grey.
        declared = int(image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0])
        bits = declared if 8 < declared < 16 else None
        inverted = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    convert = _to_8_bits(_extent(tiles, image.size), bits)
    return lambda box: 255 - convert(tiles(box)) if inverted else convert(tiles(box))


def _grey_alpha(image: Image.Image) -> Tiles:
    """Grey and alpha whose bytes, high before low, stand in the four channels."""

    def tiles(box: Box) -> Values:
        channels = _array(image, box).astype(np.uint16)
        return channels[..., :1] << 8 | channels[..., 1:2]

    convert = _to_8_bits(_extent(tiles, image.size))

    def rgba(box: Box) -> Image.Image:
        alpha = _array(image, box)[..., 2:3]
        return Image.fromarray(np.concatenate([*[convert(tiles(box))] * 3, alpha], axis=2), "RGBA")

    return _on_white(rgba, image.size)


def _wide(high: Image.Image, low: Image.Image) -> Tiles:
    """16-bit colour, with or without alpha, from the high and the low byte of its samples."""

    def tiles(box: Box) -> Values:
        return _array(high, box)[..., :3].astype(np.uint16) << 8 | _array(low, box)[..., :3]

    convert = _to_8_bits(_extent(tiles, high.size))
    if high.mode == "RGB":
        return lambda box: convert(tiles(box))
    return _on_white(
        lambda box: Image.fromarray(np.concatenate([convert(tiles(box)), _array(high, box)[..., 3:]], axis=2), "RGBA"),
        high.size,
    )


def _stretched(image: Image.Image) -> Tiles:
    def tiles(box: Box) -> Values:
        return np.asarray(_cut(image, box), np.float64)[..., None]

    extents = []
    for values in map(tiles, _boxes(image.size)):
        finite = values[np.isfinite(values)]
        if finite.size:
            extents.append((finite.min(), finite.max()))
    least = min((low for low, _ in extents), default=0.0)
    # Halved before subtracting: the span of the largest floats would overflow.
    span = max((high for _, high in extents), default=0.0) / 2 - least / 2

    def convert(box: Box) -> Values:
        values = tiles(box)
        finite = np.isfinite(values)
        share = (np.where(finite, values, least) / 2 - least / 2) / (span or 1.0)
        return np.where(finite, np.rint(share * 255), 0).astype(np.uint8)

    return convert


def _on_white(rgba: Callable[[Box], Image.Image], size: tuple[int, int]) -> Tiles:
    """Tiles of mode RGBA on white; without their alpha where that is zero everywhere."""
    if not any(rgba(box).getchannel("A").getextrema() != (0, 0) for box in _boxes(size)):
        return lambda box: np.asarray(rgba(box).convert("RGB"))

    def convert(box: Box) -> Values:
        tile = rgba(box)
        canvas = Image.new("RGB", tile.size, _WHITE)
        canvas.paste(tile.convert("RGB"), mask=tile.getchannel("A"))
        return np.asarray(canvas)

    return convert
