"""Fetches the images of a shard and decodes them in threads, in order and in bounded memory."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import PurePosixPath
from typing import Final

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import (
    ContainerError,
    ObjectArchivedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    StoreError,
)
from vouch_labels.schemas.records import Failed, ImageRef
from vouch_labels.tasks.decode import NO_MEMORY, DecodedImage, decode
from vouch_labels.tasks.memory import DEFAULT_MB, Queue, Room, memory_of
from vouch_labels.tasks.store.cursor import MOST_HELD
from vouch_labels.tasks.store.source import MOST_CURSORS, SourceStore, container_in
from vouch_labels.tasks.store.store import Store

DENIED: Final = "access denied; grant s3:GetObject to the credentials in use"
"""The reason of an image that the bucket keeps from us."""
ARCHIVED: Final = "archived (S3 Glacier, Deep Archive ...): restore it in the store; a later run will take it"
"""The reason of an image that has to be restored first."""

FIRST_THREADS: Final = 8
STARVED: Final = 0.05
"""Share of the time that the consumer waits for images from which on more threads are tried."""
HELPED: Final = 0.8
"""More threads have helped where the consumer then waits for an image at most this share of what it did."""

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


class Pace:
    """Finds how many threads fetch: more while the consumer waits for images and waits less for each with more.

    A fixed number of 8 leaves a distant bucket idle, where a request takes 20 ms or more; threads in vain cost memory.
    """

    def __init__(self, most: int, first: int = FIRST_THREADS) -> None:
        """Begin with `first` threads; there are `most` at most."""
        self.most = most
        self.threads = min(first, most)
        self._fewer: tuple[int, float] | None = None
        self._found = False

    def again(self) -> None:
        """Try once more whether more threads help: the store or the network may have changed."""
        self._fewer, self._found = None, False

    def note(self, images: int, seconds: float, waited: float) -> None:
        """Take in how long so many images took the consumer, and how much of it was waiting for them."""
        if self._found or waited < STARVED * seconds:
            return
        wait = waited / images
        if self._fewer is not None and wait > HELPED * self._fewer[1]:
            self.threads, self._found = self._fewer[0], True
        elif self.threads < self.most:
            self._fewer = self.threads, wait
            self.threads = min(2 * self.threads, self.most)


@cache
def pace_of(uri: str, most: int) -> Pace:  # noqa: ARG001 - what it is kept by
    """What this process has found for a source, the same at every call."""
    return Pace(most)


class _Jobs:
    """Calls in threads, started in the order in which they were given, by as many threads as the pace says now."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._pool = ThreadPoolExecutor(pace.most, thread_name_prefix="acquire")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Acquired], Callable[[], Acquired]]] = deque()
        self._threads = 0

    def give(self, call: Callable[[], Acquired]) -> Future[Acquired]:
        future = Future[Acquired]()
        with self._lock:
            self._waiting.append((future, call))
            if self._threads < self._pace.threads:
                self._threads += 1
                self._pool.submit(self._work)
        return future

    def stop(self) -> None:
        """Give up what has not started, and wait for the rest."""
        with self._lock:
            self._waiting.clear()
        self._pool.shutdown()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._threads > self._pace.threads:
                    self._threads -= 1
                    return
                future, call = self._waiting.popleft()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def acquire(
    refs: Sequence[ImageRef], store: Store, source: Source, threads: int | None = None, memory_mb: int = DEFAULT_MB
) -> Iterator[Acquired]:
    """Yield every planned image in the order of `refs`.

    At most 2 * threads images are fetched ahead of the consumer. Files, what decoding takes and decoded images that
    wait share the memory; a quarter of it at most is for images ahead of their turn, and an eighth for what is kept of
    Parquet files and videos that are read through. When the consumer stops early, what has not started is cancelled and
    the threads end.

    Args:
        refs: Images as they were planned. One whose etag has changed since fails; an empty etag matches any.
        store: Where they lie.
        source: Its max_image_mb (10^6 bytes, checked before fetching) and max_pixels.
        threads: Threads that fetch and decode; None: as many as `Pace` finds, at most `source.s3.threads`.
        memory_mb: MiB that they may take, together with all others of this process that give the same number.

    Yields:
        One item a ref; an object that is missing, changed, denied, too large, damaged or unreadable has `failed` set.

    Raises:
        StoreAccessError: The bucket is missing, does not know the credentials, or does not answer at all. (In a
            folder, whose access was checked before, a file without read permission is one bad file.)
    """
    window: deque[tuple[Future[Acquired], Room]] = deque()
    memory = memory_of(memory_mb)
    queue = Queue(memory)
    kept = memory.room()
    if isinstance(store, SourceStore) and any(container_in(ref.key) for ref in refs):
        store.most_kept = min(MOST_HELD, memory.limit // (8 * MOST_CURSORS))
        kept.hold(MOST_CURSORS * store.most_kept)
    pace = pace_of(store.uri, source.s3.threads) if threads is None else Pace(threads, threads)
    pace.again()
    jobs = _Jobs(pace)
    began, waited, images = time.perf_counter(), 0.0, 0

    def taken() -> Acquired:
        nonlocal began, waited, images
        future, room = window.popleft()
        asked = time.perf_counter()
        item = future.result()
        now = time.perf_counter()
        room.hold(0)
        queue.advance()
        waited += now - asked
        images += 1
        if images >= 2 * pace.threads:
            pace.note(images, now - began, waited)
            began, waited, images = now, 0.0, 0
        return item

    try:
        for place, ref in enumerate(refs):
            while len(window) >= 2 * pace.threads:
                yield taken()
            room = queue.room(place)
            window.append((jobs.give(partial(_acquire_one, ref, store, source, room)), room))
        while window:
            yield taken()
    finally:
        queue.stop()
        jobs.stop()
        kept.hold(0)
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
    except ContainerError as error:
        outcome = Failed(step="acquire", reason=" ".join(str(error).split()))
    except (StoreError, StoreAccessError) as error:
        if isinstance(error, StoreAccessError) and store.local_path("x") is None:
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
        return _too_large(size, source)
    room.hold(max(size, 0))
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
        if size < 0 and len(blob.data) > source.max_image_mb * _MEGABYTE:
            return _too_large(len(blob.data), source)
        room.hold(len(blob.data))
        # Of the version that was listed the size is known; without a version it may be any.
        if not ref.etag or size < 0 or len(blob.data) == size:
            return decode(ref.key, blob.data, source.max_pixels, room)
    raise StoreError("fewer or more bytes come than are listed, each time; look at the network and the store")


def _too_large(size: int, source: Source) -> Failed:
    limit = f"source.max_image_mb, {source.max_image_mb:g}"
    return Failed(step="acquire", reason=f"too large: {size / _MEGABYTE:.1f} MB is more than {limit}")
