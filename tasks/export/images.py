"""Puts the images beside their annotations, as copies or links."""

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from vouch_labels.schemas.errors import ObjectMissingError, StoreError, UserError
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.store.store import Store

_NO_HARD_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}


class NotPlaced(NamedTuple):
    """An image that annotations name and that could not be put beside them."""

    key: str
    reason: str


def place_images(
    images: Iterable[ExportImage],
    source: Store,
    target: Store,
    prefix: str,
    how: Literal["link", "copy"],
    *,
    threads: int = 8,
    progress: Callable[[int], None] | None = None,
) -> list[NotPlaced]:
    """Put each image at <prefix>/images/<key> of the target, replacing what is there; say which could not be placed.

    Links are hard where both folders share a file system, else symbolic; some readers refuse symbolic links that lead
    out of the folder they were given. A copy is compared with the content that was labelled, a link is not. These are
    the images that are gone from the source, were changed since they were labelled, or whose key (a//b.jpg) no file can
    have. progress is called with the number of images done since the last call.

    Raises:
        UserError: Links were asked for and one side is no folder.
        StoreError: The target cannot be written to, or the source fails for another reason than a missing image.
    """
    if how == "link" and (source.local_path("x") is None or target.local_path("x") is None):
        raise UserError("export.images: links need source and workspace to be folders on this machine; use copy")
    place = _link if how == "link" else _copy
    missed: list[NotPlaced] = []
    waiting: deque[Future[NotPlaced | None]] = deque()

    def settle() -> None:
        trouble = waiting.popleft().result()
        if trouble is not None:
            missed.append(trouble)
        if progress is not None:
            progress(1)

    with ThreadPoolExecutor(threads, thread_name_prefix="export") as pool:
        for image in images:
            waiting.append(pool.submit(place, image, source, target, f"{prefix}/images/{image.key}"))
            if len(waiting) >= 2 * threads:
                settle()
        while waiting:
            settle()
    return missed


def _copy(image: ExportImage, source: Store, target: Store, key: str) -> NotPlaced | None:
    try:
        target.local_path(key)
    except StoreError:  # "a//b.jpg" is a key of a bucket, and no file
        return NotPlaced(image.key, "its key names no file below a folder")
    try:
        data = source.get(image.key).data
    except ObjectMissingError:
        return NotPlaced(image.key, "gone from the source")
    if image.sha256 is not None and hashlib.sha256(data).hexdigest() != image.sha256:
        return NotPlaced(image.key, "changed since it was labelled; run again")
    target.put(key, data)
    return None


def _link(image: ExportImage, source: Store, target: Store, key: str) -> NotPlaced | None:
    origin, link = source.local_path(image.key), target.local_path(key)
    assert origin is not None
    assert link is not None
    if not origin.is_file():
        return NotPlaced(image.key, "gone from the source")
    try:
        _replace_by_link(origin.resolve(), link)
    except OSError as error:
        raise StoreError(f"cannot link {link} ({error.strerror}); use export.images: copy") from error
    return None


def _replace_by_link(origin: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.samefile(origin):
        return
    link.unlink(missing_ok=True)
    try:
        os.link(origin, link)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        link.symlink_to(origin)
