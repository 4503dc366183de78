"""Serves the images of the queue, by their keys alone: no path of this machine is taken or given."""

import asyncio
import io
import logging
import os
from pathlib import Path
from typing import BinaryIO, Final

from PIL import ExifTags, Image
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response

from vouch_labels.review_ui.guard.settings import GuardedSession, GuardSettings, RefusedError
from vouch_labels.schemas.errors import ObjectMissingError, VouchError
from vouch_labels.schemas.records import Failed
from vouch_labels.tasks.decode import decode, is_animated, sniff
from vouch_labels.tasks.store.s3 import presigned_url
from vouch_labels.tasks.store.source import SourceStore
from vouch_labels.tasks.store.store import Store

SHOWN: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp"}
"""Formats that browsers show, and how they are called there."""
_SHOWN_NAMES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib")
"""Names whose content a browser shows, if they say what it is."""
_HEAD: Final = 64
_MEGABYTE: Final = 1_000_000
_JPEG_QUALITY: Final = 92
_CONVERSIONS: Final = 2
"""Images that are converted at the same time; each may need some hundred megabytes."""

logger = logging.getLogger(__name__)


class Media:
    """The images of one queue."""

    def __init__(self, store: Store, session: GuardedSession, settings: GuardSettings) -> None:
        """Take where the images lie, the session, and how to send them."""
        self._store, self._session, self._settings = store, session, settings
        self._prefix = f"/vouch/{settings.queue}/"
        self._converting = asyncio.Semaphore(_CONVERSIONS)

    async def answer(self, request: Request) -> Response:
        """Answer /media?filepath=/vouch/<queue>/<key>; anything else is refused (403).

        An image that has gone or cannot be shown any more is answered by 404.
        """
        named = request.query_params.getlist("filepath")
        if len(named) != 1 or not named[0].startswith(self._prefix):
            raise RefusedError(403, "only images of the review queue can be seen")
        key = named[0].removeprefix(self._prefix)
        if not await asyncio.to_thread(self._session.has_image, key):
            raise RefusedError(403, "only images of the review queue can be seen")
        try:
            # Before anything reads it: what was labelled may have been replaced.
            found = await asyncio.to_thread(self._store.stat, key)
            if found is None:
                raise ObjectMissingError(key)
            if found.size > self._settings.max_image_mb * _MEGABYTE:
                logger.warning("image %r has %d bytes, more than source.max_image_mb", key, found.size)
                return PlainTextResponse("this image is larger than source.max_image_mb by now; skip it", 404)
            return await self._image(key)
        except ObjectMissingError:
            logger.warning("image %r is asked for and is no longer in %s", key, self._store.uri)
            return PlainTextResponse("this image has been deleted since it was labelled; skip it", 404)
        except (VouchError, OSError):
            logger.warning("image %r cannot be read", key, exc_info=True)
            return PlainTextResponse("this image cannot be read now; the log of the review says why", 502)

    async def _image(self, key: str) -> Response:
        path = await asyncio.to_thread(self._store.local_path, key)
        if path is not None:
            about = await asyncio.to_thread(_stat, path)
            if about is None:
                raise ObjectMissingError(key)
            kind = await asyncio.to_thread(_kind_to_show, path)
            if kind is not None:
                return FileResponse(path, stat_result=about, media_type=kind)
        elif self._settings.media == "redirect" and key.lower().endswith(_SHOWN_NAMES):
            url = await asyncio.to_thread(_address, self._store, key, self._settings.url_seconds)
            if url is not None:
                return RedirectResponse(url, 307)
        content = (await asyncio.to_thread(self._store.get, key)).data
        kind = _kind_of(io.BytesIO(content))
        if kind is not None:
            return Response(content, media_type=kind)
        async with self._converting:
            data = await asyncio.to_thread(self._convert, key, content)
        if isinstance(data, Failed):
            logger.warning("image %r cannot be shown: %s", key, data.reason)
            return PlainTextResponse("this image has changed since it was labelled and cannot be shown; skip it", 404)
        return Response(data, media_type="image/jpeg")

    def _convert(self, key: str, data: bytes) -> bytes | Failed:
        image = decode(key, data, self._settings.max_pixels)
        if isinstance(image, Failed):
            return image
        out = io.BytesIO()
        Image.fromarray(image.pixels).save(out, "JPEG", quality=_JPEG_QUALITY)
        return out.getvalue()


def _address(store: Store, key: str, seconds: int) -> str | None:
    """A signed address of an image, see `presigned_url`; None: it has none of its own, as inside a tar."""
    if isinstance(store, SourceStore):
        return None if store.is_member(key) else presigned_url(store.store, key, seconds)
    return presigned_url(store, key, seconds)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat() if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _kind_to_show(path: Path) -> str | None:
    """The content type of a file that a browser shows as Vouch saw it; None: it must be converted."""
    with path.open("rb") as file:
        return _kind_of(file)


def _kind_of(file: BinaryIO) -> str | None:
    head = file.read(_HEAD)
    kind = SHOWN.get(sniff(head))
    file.seek(0)
    # A film's later frames are not what was labelled.
    return None if kind is None or is_animated(head) or _is_turned(file) else kind


def _is_turned(file: BinaryIO) -> bool:
    """Whether EXIF turns the pixels: what draws on a canvas may leave that out, boxes do not."""
    try:
        with Image.open(file, formats=["JPEG", "PNG", "WEBP"]) as image:
            return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except Exception:
        return False
