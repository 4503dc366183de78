"""Decodes the content of image files to upright 8-bit RGB, whatever their names say, within a bound of memory."""

import hashlib
import io
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vouch_labels.schemas.records import Failed
from vouch_labels.tasks.memory import DEFAULT_MB, Room, StoppedError, memory_of
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.pixels import ORIENTATIONS, is_wide, read_upright

_BLOCK: Final = 64 << 20
# glibc keeps what a thread frees for that thread unless it is more than 32 MiB at once. With Pillow's blocks of 16 MiB,
# eight threads were seen to hold 2 GiB of images that were long gone.
Image.core.set_block_size(_BLOCK)  # type: ignore[attr-defined] # documented, and not exported
# Images are decoded side by side already; threads within one would only take memory.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _heif(file: io.BytesIO) -> ImageFile.ImageFile:
    # Only when it is needed: an installation without it reads all other formats.
    import pillow_heif

    options = pillow_heif.options
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    image: ImageFile.ImageFile = pillow_heif.HeifImageFile(file)  # type: ignore[no-untyped-call] # as Pillow's
    return image


# The classes themselves, not Image.open: it warns or raises by a process-wide pixel limit, and a JPEG with a second
# picture inside comes out of it as another format.
_READERS: Final[dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "HEIC": _heif,
    "AVIF": AvifImageFile,
    "JPEG 2000": Jpeg2KImageFile,
}

_LONGEST_REASON: Final = 200

VERSION: Final = 1
"""Raised whenever the same file could become other pixels; results depend on it.

It was not raised when 16-bit data of fewer bits, which came out nearly black, got the rule of today: labels of such
images made before stay until the image, the detector or the name of the run changes.
"""

WITHOUT_EXTENSION: Final = "no image, without an extension"
"""The kind under which files are counted whose name says nothing and whose content is no image."""
NO_MEMORY: Final = "unforeseen MemoryError"
"""How the reason begins of an image for which there was too little memory."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """One upright image and what its file was."""

    pixels: Pixels = field(repr=False)
    """(H, W, 3) uint8 RGB, EXIF-oriented, C-contiguous."""
    sha256: str
    """Hex of SHA-256 over the file's bytes."""
    format: str
    """JPEG, PNG, WEBP, TIFF, BMP, GIF, HEIC, AVIF or JPEG 2000."""
    mode: str
    """Pillow's mode of the file, before conversion: RGB, L, P, CMYK, I;16 ..."""
    orientation: int
    """EXIF orientation 1..8 that was undone; 1 when the file names none or an impossible one."""


def decode(key: str, data: bytes, max_pixels: int, room: Room | None = None) -> DecodedImage | Failed:
    """Turn a file's bytes into upright RGB pixels; whatever they are, nothing is raised for them.

    The format is recognised by content, whatever the name says; `claims_another` tells of names that say otherwise. Of
    several frames or pages the first is taken, of a HEIC the primary one. The EXIF orientation is applied exactly once.
    `read_upright` states how every pixel format becomes RGB. The limit on pixels is compared with the header's size
    before anything is decoded; for TIFF and WebP Pillow's own limit of 179 million holds beside it.

    The memory that decoding takes is estimated from the header and reserved in `room` before, which may take waiting.
    What fails for want of memory is tried once more when nothing else is decoded; if it fails again, the step is
    "fetch", which every run tries again, and nothing is said of damage. An image that needs more than its share fails.

    Args:
        key: Its name, by which content that is no image fails or, if the name claims no image, is skipped.
        data: The whole file.
        max_pixels: Images of more fail.
        room: Where memory is reserved; by default one of its own, of the memory that all share who give none.

    Raises:
        StoppedError: The room's consumer has left.
    """
    room = room or memory_of(DEFAULT_MB).room()
    found = sniff(data) if data else "empty"
    if found not in _READERS:
        # A file whose name has no extension claims nothing, and is skipped.
        if not PurePosixPath(key).suffix:
            return Failed(step="acquire", reason=WITHOUT_EXTENSION, skip=True)
        if found == "empty":
            return _failed("the file has zero bytes")
        return _failed(f"no supported image: the content is {found}; supported are {', '.join(_READERS)}")
    try:
        try:
            return _decode(found, data, max_pixels, room)
        except MemoryError:
            with room.alone():
                return _decode(found, data, max_pixels, None)
    except MemoryError as error:
        return Failed(step="fetch", reason=f"{NO_MEMORY}: {error}; the next run tries again")
    except Image.DecompressionBombError as error:
        return _failed(f"too many pixels: {error}")
    except StoppedError:
        raise
    except ModuleNotFoundError as error:
        return _failed(f"{found} needs the package {error.name}; install it and run again with --retry-failed")
    except Exception as error:
        return _failed(f"damaged or unsupported {found}: {error or type(error).__name__}")


def _decode(found: str, data: bytes, max_pixels: int, room: Room | None) -> DecodedImage | Failed:
    """Decode what is of a known format; without a room nothing is reserved.

    Raises:
        MemoryError: There was too little, by what was raised or because what is needed cannot be had.
        Exception: The file is damaged.
    """
    needed = len(data)
    if found == "WEBP":
        # Its reader makes the decoder, with two canvases, as soon as it opens the file.
        width, height = _webp_size(data)
        if width * height > max_pixels:
            return _too_many(width, height, max_pixels)
        needed += _DECODER[found] * width * height

    def reopen() -> ImageFile.ImageFile:
        return _READERS[found](io.BytesIO(data))

    try:
        with reopen() as image:
            width, height = image.size
            if width * height > max_pixels:
                return _too_many(width, height, max_pixels)
            needed = needed_bytes(image, found, data)
            if room is not None and needed > room.most:
                return _failed(
                    f"too large to decode: {width} x {height} may need {needed >> 20:,} MiB, and one image gets at "
                    f"most {room.most >> 20:,} of run.decode_memory_mb; raise that and run again with --retry-failed"
                )
            mode = image.mode
            # TIFF is turned while it loads, and then forgets its tag; a PNG may name its orientation after the pixels.
            # HEIC is turned by its own properties, and its reader takes the tag away.
            turned_by_reader = found == "TIFF"
            named = _orientation(image) if turned_by_reader else 1
            with nullcontext() if room is None else room.decoding(needed):
                pixels, undone = read_upright(image, reopen, lambda: 1 if turned_by_reader else _orientation(image))
    except Exception as error:
        if not isinstance(error, StoppedError) and _is_shortage(error, needed):
            raise MemoryError(f"decoding it may need {needed >> 20:,} MiB") from error
        raise
    return DecodedImage(pixels, hashlib.sha256(data).hexdigest(), found, mode, named if turned_by_reader else undone)


def _too_many(width: int, height: int, max_pixels: int) -> Failed:
    return _failed(f"too many pixels: {width} x {height} is more than source.max_pixels, {max_pixels}")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP; zeros where it is none."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def _is_shortage(error: Exception, needed: int) -> bool:
    """Whether a file failed for want of memory; some decoders only say that they failed, so it is tried out."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return True
    try:
        np.empty(needed, np.uint8)
    except MemoryError:
        return True
    return False


_SLACK: Final = 12 << 20
"""Bytes for tiles, tables and the decoders' own needs."""
_RGB: Final = 3
_BITS_PER_SAMPLE: Final = 258
_ROWS_PER_STRIP: Final = 278
_TILE_WIDTH: Final = 322
_TILE_LENGTH: Final = 323
_STORAGE: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Pillow's bytes a pixel; all other modes have four."""
_DECODER: Final = {"WEBP": 8, "AVIF": 10, "HEIC": 10}
"""Bytes a pixel of two canvases, and of planes of up to 12 bits with what they are converted to."""
_JPEG_2000_BAND: Final = 5.25
"""Bytes a pixel of a tile and band."""
_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_UNKNOWN: Final = 16.0
"""Bytes a pixel of a decoder's buffer where the header does not say how large it is."""


def needed_bytes(image: ImageFile.ImageFile, found: str, data: bytes) -> int:
    """Estimate from its header the most bytes that decoding an opened image and converting it hold at once.

    Beside the file: Pillow's image, and with it first what the decoder needs, then the RGB pixels. The factors were
    measured (`python -m benchmarks decoding`).
    """
    width, height = image.size
    storage = 4 if found == "WEBP" else _STORAGE.get(image.mode, 4)
    decoder = float(_DECODER.get(found, 0))
    if isinstance(image, JpegImageFile) and image.info.get("progressive"):
        # The coefficients of all components, which are needed until its end.
        factors = [across * down for _, across, down, _ in image.layer]
        decoder = 2 * sum(factors) / max(factors, default=1)
    elif isinstance(image, TiffImageFile):
        decoder = max(_strip(image), storage if _orientation(image) != 1 else 0)
    elif isinstance(image, Jpeg2KImageFile):
        at = data.find(_CODESTREAM) + 24
        across, down = (int.from_bytes(data[start : start + 4], "big") for start in (at, at + 4))
        decoder = _JPEG_2000_BAND * len(image.getbands()) * min(1.0, across / width * down / height)
    converted = _RGB + (storage if is_wide(image) else 0)
    return _SLACK + round(width * height * (storage + max(decoder, converted)))


def _strip(image: TiffImageFile) -> float:
    """Bytes a pixel of the strip or tile that is unpacked at a time; it may be the whole image."""
    if not any(tile.codec_name == "libtiff" for tile in image.tile):
        return 0.0
    tags, (width, height) = image.tag_v2, image.size
    try:
        # Subsampled colour is unpacked to four bytes a pixel.
        size = max(32, sum(tags.get(_BITS_PER_SAMPLE, (1,)))) / 8
        rows = tags.get(_TILE_LENGTH) or tags.get(_ROWS_PER_STRIP, height)
        return float(size * min(1.0, tags.get(_TILE_WIDTH, width) / width * rows / height))
    except (TypeError, ValueError):
        return _UNKNOWN


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if value in ORIENTATIONS else 1


def _failed(reason: str) -> Failed:
    line = " ".join(reason.split())
    return Failed(step="acquire", reason=line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "...")


# What is no image of ours is named too, so that the reason helps: a saved error page, a PDF, a video.
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "ICO"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "GZIP"),
)
_ENDINGS: Final = {
    "JPEG": "jpg jpeg jpe jfif mpo",
    "PNG": "png apng",
    "WEBP": "webp",
    "TIFF": "tif tiff",
    "BMP": "bmp dib",
    "GIF": "gif",
    "HEIC": "heic heif hif",
    "AVIF": "avif",
    "JPEG 2000": "jp2 j2k jpx",
    "JPEG XL": "jxl",
    "ICO": "ico",
    "PSD": "psd",
    "SVG": "svg",
    "PDF": "pdf",
}
_EXTENSIONS: Final = {f".{ending}": name for name, endings in _ENDINGS.items() for ending in endings.split()}


_ISO_BRANDS: Final = (
    (("avif", "avis"), "AVIF"),
    (("heic", "heix", "hevc", "hevx", "heim", "heis", "hevm", "hevs", "mif1", "msf1"), "HEIC"),
)


def sniff(data: bytes) -> str:
    """Name the format of a file by its first 64 bytes: one of those that are read, or what else it is."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # The brands of the first box: the file's own, and those that it is compatible with.
        end = min(int.from_bytes(data[:4], "big"), 64)
        brands = {data[at : at + 4].decode("latin-1") for at in (8, *range(16, end - 3, 4))}
        return next((name for known, name in _ISO_BRANDS if brands.intersection(known)), "a video")
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    text = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "XML" if text.startswith((b"<?xml", b"<svg")) else "of no known format"


def mislabelled(key: str, found: str) -> str | None:
    """Return the key's extension when it claims another image format than the one found, else None."""
    extension = PurePosixPath(key).suffix.lower()
    return extension if _EXTENSIONS.get(extension, found) != found else None


def is_animated(head: bytes) -> bool:
    """Whether a PNG or WebP, by its first 64 bytes, is shown as a film; its labels are those of the first frame."""
    if head[:4] == b"RIFF":
        return head[12:16] == b"VP8X" and bool(head[20:21]) and bool(head[20] & 2)
    return head[37:41] == b"acTL"
