"""Puts the images beside their annotations, as copies or links; copies may have regions filled."""

import errno
import hashlib
import os
import posixpath
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from vouch_labels.schemas.errors import (
    ContainerError,
    ObjectChangedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    StoreError,
    UserError,
)
from vouch_labels.tasks.export.fill import CannotFillError, filled
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.store.local import temporary_name
from vouch_labels.tasks.store.store import Store

_NO_HARD_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}

_OF_ONE_FILE: Final = {
    errno.ENAMETOOLONG: "its name is longer than the file system takes",
    errno.EINVAL: "its name has a character that the file system refuses",
    errno.EILSEQ: "its name has a character that the file system refuses",
    errno.EEXIST: "a file has the name of its folder",
    errno.ENOTDIR: "a file has the name of its folder",
    errno.EISDIR: "a folder has its name",
    errno.ENOTEMPTY: "a folder has its name",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ELOOP: "its links lead in a circle",
}
"""What is wrong with one file, by the error; others, as of a full disk, are about all of them."""

_LONGEST_KEY: Final = 1024
"""Bytes of an S3 key, at most."""


def _beside(image: ExportImage) -> str:
    return f"images/{image.key}"


@dataclass(frozen=True)
class Layout:
    """Where images go in a data set's folder, and how they are changed."""

    path: Callable[[ExportImage], str] = _beside
    """Where an image goes, relative to the data set's folder."""
    regions: Callable[[ExportImage], Sequence[tuple[int, int, int, int]]] | None = None
    """Parts of it to be filled with grey, as xyxy in pixels of the upright image; such an image is always copied."""
    refuses: Callable[[str], str] | None = None
    """Says why an image of this key cannot be in the data set; empty: it can."""
    label_suffix: str = ""
    """Suffix of the file of an image's labels, which has its name: of two images that share one, the first gets it."""


class _Missed(NamedTuple):
    """An image that could not be put beside the annotations."""

    key: str
    reason: str


def place_images(
    images: Iterable[ExportImage],
    source: Store,
    target: Store,
    prefix: str,
    how: Literal["link", "copy"],
    *,
    layout: Layout | None = None,
    threads: int = 8,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Put each image at <prefix>/images/<key> of the target, or where the layout says, replacing what is there.

    Links are hard where both folders share a file system, else symbolic; some readers refuse symbolic links that lead
    out of the folder they were given. What lies in a container, such as a tar, is copied all the same. A copy is
    compared with the content that was labelled, a link is not. progress is called with the number of images done since
    the last call.

    Returns:
        Key -> reason of every image that could not be put there: gone from the source, changed since it was labelled,
        not to be read, or of a name that the target does not take.

    Raises:
        UserError: Links were asked for and one side is no folder, or the target's folder cannot be written.
        StoreError: The target cannot be written to, the source fails for another reason than a single image, or not
            one image could be put there.
    """
    if how == "link" and (source.local_path("x") is None or target.local_path("x") is None):
        raise UserError("export.images: links need source and workspace to be folders on this machine; use copy")
    layout = layout or Layout()
    fold = _folding(target, prefix)
    missed: dict[str, str] = {}
    names: dict[str, str] = {}
    label_files: set[int] = set()
    done = 0

    def settle(result: "Future[_Missed | None] | _Missed") -> None:
        nonlocal done
        trouble = result if isinstance(result, _Missed) else result.result()
        if trouble is not None:
            missed[trouble.key] = trouble.reason
        done += 1
        if progress is not None:
            progress(1)

    place = partial(_place, source=source, target=target, prefix=prefix, how=how, layout=layout)
    waiting: deque[Future[_Missed | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="export") as pool:
        for image in images:
            if fold is not None and (first := names.setdefault(fold(image.key), image.key)) != image.key:
                settle(_Missed(image.key, f"the file system takes its name for that of {first}"))
                continue
            if layout.label_suffix:
                path = layout.path(image)
                stem, _ = posixpath.splitext(path if fold is None else fold(path))
                if hash(stem) in label_files:
                    settle(_Missed(image.key, f"the {layout.label_suffix} file of its labels is another image's"))
                    continue
                label_files.add(hash(stem))
            waiting.append(pool.submit(place, image))
            if len(waiting) >= 2 * threads:
                settle(waiting.popleft())
        while waiting:
            settle(waiting.popleft())
    if done and len(missed) == done:
        reason = next(iter(missed.values()))
        raise StoreError(f"none of {done:,} images could be put into {target.uri}/{prefix}: {reason}")
    return missed


def _folding(target: Store, folder: str) -> Callable[[str], str] | None:
    """What makes two names one on the target's file system; None where names differ as their bytes do."""
    if target.local_path("x") is None:
        return None
    probe = f"{folder}/{temporary_name()}"
    target.put(probe, b"")
    try:
        if target.stat(f"{folder}/{probe.removeprefix(f'{folder}/').upper()}") is None:
            return None
    finally:
        target.delete(probe)
    # Those that mind no case mind no composition either, or the difference costs a name that hardly is there twice.
    return lambda key: unicodedata.normalize("NFC", key).casefold()


def _place(
    image: ExportImage, *, source: Store, target: Store, prefix: str, how: Literal["link", "copy"], layout: Layout
) -> _Missed | None:
    if layout.refuses is not None and (refusal := layout.refuses(image.key)):
        return _Missed(image.key, refusal)
    key = f"{prefix}/{layout.path(image)}"
    try:
        path = target.local_path(key)
    except StoreError:  # "a//b.jpg" is a key of a bucket, and no file
        return _Missed(image.key, "its key names no file below a folder")
    if path is None and len(f"{target.uri.partition('://')[2].partition('/')[2]}/{key}".encode()) > _LONGEST_KEY:
        return _Missed(image.key, f"its key would be longer than {_LONGEST_KEY:,} bytes there")
    changed = layout.regions is not None and bool(layout.regions(image))
    # What lies in a container is no file to link to.
    if how == "copy" or changed or source.local_path(image.key) is None:
        reason = _copy(image, source, target, key, layout)
    else:
        reason = _link(image, source, target, key)
    return None if reason is None else _Missed(image.key, reason)


def read_image(image: ExportImage, source: Store) -> bytes | str:
    """Read the file of an image as it was labelled; text: why it cannot be had.

    Raises:
        StoreError: The source fails for another reason than this image.
    """
    try:
        data = source.get(image.key).data
    except ObjectMissingError:
        return "gone from the source"
    except ObjectRefusedError:
        return "the source refuses access to it"
    except ObjectChangedError:
        return "changed since it was labelled; run again"
    except ContainerError as error:
        return f"it cannot be read: {error}"
    except (StoreError, StoreAccessError) as error:
        if (reason := _of_one_file(error.__cause__)) is None:
            raise
        return f"it cannot be read: {reason}"
    if image.sha256 is not None and hashlib.sha256(data).hexdigest() != image.sha256:
        return "changed since it was labelled; run again"
    return data


def read_changed(image: ExportImage, source: Store, layout: Layout) -> bytes | str:
    """As `read_image`, with the regions filled that the layout names.

    Raises:
        StoreError: The source fails for another reason than this image.
    """
    data = read_image(image, source)
    regions = layout.regions(image) if layout.regions is not None else ()
    if isinstance(data, str) or not regions:
        return data
    try:
        return filled(image.key, data, (image.width, image.height), regions)
    except CannotFillError as error:
        return str(error)


def _copy(image: ExportImage, source: Store, target: Store, key: str, layout: Layout) -> str | None:
    data = read_changed(image, source, layout)
    if isinstance(data, str):
        return data
    try:
        target.put(key, data)
    except (StoreError, StoreAccessError) as error:
        if (reason := _of_one_file(error.__cause__)) is None:
            raise
        return reason
    return None


def _link(image: ExportImage, source: Store, target: Store, key: str) -> str | None:
    origin, link = source.local_path(image.key), target.local_path(key)
    assert origin is not None
    assert link is not None
    try:
        if not origin.is_file():
            return "gone from the source"
        _replace_by_link(origin.resolve(), link)
    except OSError as error:
        if (reason := _of_one_file(error)) is None:
            raise StoreError(f"cannot link {link} ({error.strerror}); use export.images: copy") from error
        return reason
    return None


def _of_one_file(error: BaseException | None) -> str | None:
    return _OF_ONE_FILE.get(error.errno or 0) if isinstance(error, OSError) else None


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
