"""Fetches and decodes the images of a shard in threads, in order and in bounded memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from schemas.campaign import Source
from schemas.errors import ObjectMissingError, ObjectRefusedError, StoreAccessError, StoreError
from schemas.records import Failed, ImageRef
from tasks.acquire.decode import DecodedImage, decode
from tasks.store.store import Store

DENIED: Final = "access denied; grant s3:GetObject to the credentials in use"
"""The reason of an image that the bucket keeps from us."""

_MEGABYTE: Final = 1_000_000
# Decoded pixels that may wait for the consumer; one image always may.
_MOST_WAITING: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Acquired:
    """One planned image: its pixels, or why there are none."""

    ref: ImageRef
    image: DecodedImage | None
    failed: Failed | None


def acquire(refs: Sequence[ImageRef], store: Store, source: Source, threads: int) -> Iterator[Acquired]:
    """Yield every planned image in the order of `refs`.

    At most 2 * threads images are fetched ahead of the consumer, fewer when the decoded ones that wait pass 1 GiB.
    When the consumer stops early, what has not begun is cancelled and the threads end.

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
        outcome = Failed(step="fetch", reason="deleted since it was listed")
    except ObjectRefusedError:
        outcome = Failed(step="fetch", reason=DENIED)
    except (StoreError, StoreAccessError) as error:
        if isinstance(error, StoreAccessError) and store.local_path(ref.key) is None:
            raise
        # A store that fails is no fault of the image: a shard of nothing else is tried again.
        kind = "" if isinstance(error, StoreAccessError) else f"unforeseen {type(error).__name__}: "
        outcome = Failed(step="fetch", reason=kind + " ".join(str(error).split()))
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
    blob = store.get(ref.key)
    if ref.etag and blob.etag != ref.etag:
        return Failed(step="fetch", reason="changed since it was listed; the next run will take it")
    return decode(ref.key, blob.data, source.max_pixels)
