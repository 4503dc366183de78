"""Defines the protocol of object storage that a local folder and S3 share, and maps functions over items in threads.

Threads keep the order of items and a bounded number of them under way.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Items under way or waiting for their turn, a thread."""


class ObjectInfo(NamedTuple):
    """One object of a listing; a tuple, since there are millions."""

    key: str
    """Key relative to the store's uri, with forward slashes."""
    etag: str
    """Version tag: changes whenever the content does."""
    size: int
    """Bytes."""


class Blob(NamedTuple):
    """An object's content and the version that was read."""

    data: bytes
    """The whole content."""
    etag: str
    """Version tag of exactly this content: compare it with the listed one to see a change."""


class Store(Protocol):
    """Objects below one uri, safe for use from many threads.

    Keys are relative to the uri and use forward slashes. Every method raises StoreAccessError when the bucket or
    folder is missing or refuses access, and StoreError when it fails for another reason after all retries.
    """

    uri: str
    """s3://bucket/prefix or an absolute folder; carries no secret, so it may be printed."""

    def list(self, prefix: str = "", left_out: Counter[str] | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with `prefix`, in the order of their keys' UTF-8 bytes.

        Reads page by page (S3) or folder by folder, so memory does not grow with the number of objects. A folder
        that does not exist has no objects. Names that stand for no object are counted in `left_out`, by their kind.
        """

    def get(self, key: str) -> Blob:
        """Read a whole object.

        Raises:
            ObjectMissingError: No object has this key.
        """

    def get_range(self, key: str, start: int, size: int, etag: str) -> bytes:
        """Read `size` bytes from `start` on, of exactly the version that has this tag.

        Raises:
            ObjectMissingError: No object has this key.
            ObjectChangedError: It has another tag by now, or has not so many bytes.
        """

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Read a large object as a seekable file (an object of S3 is downloaded to temporary local disk first).

        Raises:
            ObjectMissingError: No object has this key.
        """

    def stat(self, key: str) -> ObjectInfo | None:
        """Look an object up without reading it; None when there is none."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a whole object at once: readers see the old content or the new, never a part.

        With `if_absent` only when no object has this key: of several writers at most one wins, on every folder with
        hard links and every S3 store that honours If-None-Match; elsewhere a look comes before the write.

        Returns:
            False when `if_absent` was asked for and another writer's object was there already, else True.
        """

    def open_writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Write a large object as a stream; it appears whole when the block ends, and not at all if it raises."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine's disk; None for S3. The file need not exist."""


def map_ordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield function(item) for every item, in order, from so many threads.

    Items are drawn in the caller's thread, only `AHEAD` a thread before their results are taken.

    Raises:
        Exception: Whatever the function raises, when its item's turn comes; items not yet started are given up.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads, "map") as pool:
        window: deque[Future[Result]] = deque()
        try:
            for item in islice(waiting, AHEAD * threads):
                window.append(pool.submit(function, item))
            while window:
                yield window.popleft().result()
                for item in islice(waiting, 1):
                    window.append(pool.submit(function, item))
        finally:
            for future in window:
                future.cancel()
