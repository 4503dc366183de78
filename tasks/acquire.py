"""Fetches the images of a shard and decodes them in threads, in order and in bounded memory."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import (
    ObjectArchivedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    StoreError,
)
from vouch_labels.schemas.records import Failed, ImageRef
from vouch_labels.tasks.decode import NO_MEMORY, DecodedImage, decode
from vouch_labels.tasks.memory import DEFAULT_MB, Queue, Room, memory_of
from vouch_labels.tasks.store.store import Store

DENIED: Final = "access denied; grant s3:GetObject to the credentials in use"
"""The reason of an image that the bucket keeps from us."""
ARCHIVED: Final = "archived (S3 Glacier, Deep Archive ...): restore it in the store; a later run will take it"
"""The reason of an image that has to be restored first."""

_CUT_WAIT_S: Final = 0.05

DELETED: Final = "deleted since it was listed"
"""The reason of an image that the source no longer has."""

_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Acquired:
    """One planned image: its pixels, or why there are none."""

    ref: ImageRef
    image: DecodedImage | None
    failed: Failed | None


def acquire(
    refs: Sequence[ImageRef], store: Store, source: Source, threads: int, memory_mb: int = DEFAULT_MB
) -> Iterator[Acquired]:
    """Yield every planned image in the order of `refs`.

    At most 2 * threads images are fetched ahead of the consumer. Files, what decoding takes and decoded images that
    wait share the memory; a quarter of it at most is for images ahead of their turn. When the consumer stops early,
    what has not started is cancelled and the threads end. An image whose etag has changed since it was planned fails;
    an empty etag matches any. `memory_mb` are MiB for all threads of this process that give the same number.

    Yields:
        One item a ref; an object that is missing, changed, denied, too large, damaged or unreadable has `failed` set.

    Raises:
        StoreAccessError: The bucket is missing, does not know the credentials, or does not answer at all. (In a
            folder, whose access was checked before, a file without read permission is one bad file.)
    """
    window: deque[tuple[Future[Acquired], Room]] = deque()
    queue = Queue(memory_of(memory_mb))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="acquire")

    def taken() -> Acquired:
        future, room = window.popleft()
        item = future.result()
        room.hold(0)
        queue.advance()
        return item

    try:
        for place, ref in enumerate(refs):
            while len(window) >= 2 * threads:
                yield taken()
            room = queue.room(place)
            window.append((pool.submit(_acquire_one, ref, store, source, room), room))
        while window:
            yield taken()
    finally:
        queue.stop()
        pool.shutdown(cancel_futures=True)
        for _, room in window:
            room.hold(0)


def _acquire_one(ref: ImageRef, store: Store, source: Source, room: Room) -> Acquired:
    try:
        outcome = _fetch_and_decode(ref, store, source, room)
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
        room.hold(0)
        return Acquired(ref, None, outcome)
    room.hold(outcome.pixels.nbytes)
    return Acquired(ref, outcome, None)


def _fetch_and_decode(ref: ImageRef, store: Store, source: Source, room: Room) -> DecodedImage | Failed:
    size = ref.size
    if size < 0:
        info = store.stat(ref.key)
        if info is None:
            raise ObjectMissingError(ref.key)
        size = info.size
    if size > source.max_image_mb * _MEGABYTE:
        if not PurePosixPath(ref.key).suffix:
            return Failed(step="acquire", reason="too large, without an extension", skip=True)
        limit = f"source.max_image_mb, {source.max_image_mb:g}"
        return Failed(step="acquire", reason=f"too large: {size / _MEGABYTE:.1f} MB is more than {limit}")
    room.hold(size)
    for attempt in range(source.s3.max_attempts):
        if attempt:
            time.sleep(_CUT_WAIT_S * 2 ** (attempt - 1))
        try:
            blob = store.get(ref.key)
        except MemoryError:
            with room.alone():
                try:
                    blob = store.get(ref.key)
                except MemoryError:
                    reason = f"{NO_MEMORY}: its file has {size / _MEGABYTE:.1f} MB; the next run tries again"
                    return Failed(step="fetch", reason=reason)
        if ref.etag and blob.etag != ref.etag:
            return Failed(step="fetch", reason="changed since it was listed; the next run will take it")
        # Of the version that was listed the size is known; without a version it may be any.
        if not ref.etag or len(blob.data) == size:
            return decode(ref.key, blob.data, source.max_pixels, room)
    raise StoreError("fewer or more bytes come than are listed, each time; look at the network and the store")
