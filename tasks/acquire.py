"""Fetches the images of a shard and decodes them to upright 8-bit RGB, in threads, in order and in bounded memory.

File formats are recognised by their first bytes and by their names. Every pixel format that a file may have is
converted by stated rules; a file that cannot be decoded becomes a failed image with its reason.
"""

import hashlib
import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import (
    ObjectArchivedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    StoreError,
)
from vouch_labels.schemas.records import Failed, ImageRef
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.store.store import Store

DENIED: Final = "access denied; grant s3:GetObject to the credentials in use"
"""The reason of an image that the bucket keeps from us."""
ARCHIVED: Final = "archived (S3 Glacier, Deep Archive ...): restore it in the store; a later run will take it"
"""The reason of an image that has to be restored first."""

_CUT_WAIT_S: Final = 0.05

DELETED: Final = "deleted since it was listed"
"""The reason of an image that the source no longer has."""

_MEGABYTE: Final = 1_000_000
# Decoded pixels that may wait for the consumer; one image always may.
_MOST_WAITING: Final = 1 << 30

# The classes themselves, not Image.open: it warns or raises by a process-wide pixel limit, and a JPEG with a second
# picture inside comes out of it as another format.
_READERS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}

_LONGEST_REASON: Final = 200

VERSION: Final = 1
"""Raised whenever the same file could become other pixels; results depend on it."""

_WHITE: Final = (255, 255, 255)
_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0


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


@dataclass(frozen=True, slots=True)
class Acquired:
    """One planned image: its pixels, or why there are none."""

    ref: ImageRef
    image: DecodedImage | None
    failed: Failed | None


def acquire(refs: Sequence[ImageRef], store: Store, source: Source, threads: int) -> Iterator[Acquired]:
    """Yield every planned image in the order of `refs`.

    At most 2 * threads images are fetched ahead of the consumer, fewer when the decoded ones that wait pass 1 GiB.
    When the consumer stops early, what has not started is cancelled and the threads end.

    Args:
        refs: Images as they were planned. One whose etag has changed since fails; an empty etag matches any.
        store: Where they lie.
        source: Its max_image_mb (10^6 bytes, checked before fetching) and max_pixels.
        threads: Threads that fetch and decode.

    Yields:
        One item a ref; an object that is missing, changed, denied, too large, damaged or unreadable has `failed` set.

    Raises:
        StoreAccessError: The bucket is missing, does not know the credentials, or does not answer at all. (In a
            folder, whose access was checked before, a file without read permission is one bad file.)
    """
    window: deque[Future[Acquired]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="acquire")
    try:
        for ref in refs:
            while window and (len(window) >= 2 * threads or _waiting(window) > _MOST_WAITING):
                yield window.popleft().result()
            window.append(pool.submit(_acquire_one, ref, store, source))
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _waiting(window: deque[Future[Acquired]]) -> int:
    """Bytes of the decoded images that wait in the window."""
    done = (future for future in window if future.done() and future.exception() is None)
    return sum(item.image.pixels.nbytes for item in (future.result() for future in done) if item.image)


def _acquire_one(ref: ImageRef, store: Store, source: Source) -> Acquired:
    try:
        outcome = _fetch_and_decode(ref, store, source)
    except ObjectMissingError:
        outcome = Failed(step="fetch", reason=DELETED)
    except ObjectRefusedError:
        outcome = Failed(step="fetch", reason=DENIED)
    except ObjectArchivedError:
        outcome = Failed(step="fetch", reason=ARCHIVED)
    except (StoreError, StoreAccessError) as error:
        if isinstance(error, StoreAccessError) and store.local_path(ref.key) is None:
            raise
        # A store that fails is no fault of the image: a shard of nothing else is tried again.
        kind = "" if isinstance(error, StoreAccessError) else f"unforeseen {type(error).__name__}: "
        # Without the key, which stands beside the reason: images that failed for one reason are counted together.
        words = " ".join(str(error).split()).removeprefix(f"cannot read {store.uri}/{ref.key}: ")
        outcome = Failed(step="fetch", reason=kind + words)
    if isinstance(outcome, Failed):
        return Acquired(ref, None, outcome)
    return Acquired(ref, outcome, None)


def _fetch_and_decode(ref: ImageRef, store: Store, source: Source) -> DecodedImage | Failed:
    size = ref.size
    if size < 0:
        info = store.stat(ref.key)
        if info is None:
            raise ObjectMissingError(ref.key)
        size = info.size
    if size > source.max_image_mb * _MEGABYTE:
        megabytes = f"{size / _MEGABYTE:.1f} MB"
        return Failed(
            step="acquire", reason=f"too large: {megabytes} is more than source.max_image_mb, {source.max_image_mb:g}"
        )
    for attempt in range(source.s3.max_attempts):
        if attempt:
            time.sleep(_CUT_WAIT_S * 2 ** (attempt - 1))
        blob = store.get(ref.key)
        if ref.etag and blob.etag != ref.etag:
            return Failed(step="fetch", reason="changed since it was listed; the next run will take it")
        # Of the version that was listed the size is known; without a version it may be any.
        if not ref.etag or len(blob.data) == size:
            return decode(ref.key, blob.data, source.max_pixels)
    raise StoreError("fewer or more bytes come than are listed, each time; look at the network and the store")


_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(key: str, data: bytes, max_pixels: int) -> DecodedImage | Failed:
    """Turn a file's bytes into upright RGB pixels; whatever they are, nothing is raised.

    JPEG, PNG, WebP, TIFF and BMP are recognised by content. A name that claims another image format is mislabelled
    and fails; a name that claims none is fine. Of several frames or pages the first is taken. The EXIF orientation is
    applied exactly once. `to_rgb` states how every pixel format becomes RGB. The limit on pixels is compared with the
    header's size before anything is decoded; for TIFF and WebP Pillow's own limit of 179 million holds beside it.
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


# What is no image of ours is named too, so that the reason helps: a saved error page, a PDF, a phone's HEIC.
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
_EXTENSIONS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".gif": "GIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".avif": "AVIF",
    ".jp2": "JPEG 2000",
    ".jxl": "JPEG XL",
    ".ico": "ICO",
    ".psd": "PSD",
    ".svg": "SVG",
    ".pdf": "PDF",
}


def sniff(data: bytes) -> str:
    """Name the format of a file by its first 64 bytes: JPEG, PNG, WEBP, TIFF, BMP, or what else it is."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC or video"
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

    Raises:
        ValueError: There is no rule for its mode.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray(_high_byte(image)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image, np.float64))).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return _on_white(image)
    if image.mode == "CMYK" and isinstance(image, JpegImageFile) and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for one of Adobe's.
        return ImageChops.invert(image).convert("RGB")
    if image.mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return image if image.mode == "RGB" else image.convert("RGB")
    raise ValueError(f"pixels of mode {image.mode} cannot be converted")


def _high_byte(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    values = np.asarray(image)
    bits, inverted = 16, False
    if isinstance(image, TiffImageFile):
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
