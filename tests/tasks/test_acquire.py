import gc
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processes import HANG_S
from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import ObjectArchivedError, ObjectRefusedError, StoreAccessError, StoreError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks import decode as decoding
from vouch_labels.tasks import pixels
from vouch_labels.tasks.acquire import ARCHIVED, DENIED, Acquired, Pace, acquire, pace_of
from vouch_labels.tasks.memory import DEFAULT_MB, memory_of
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.store import Blob

COUNT = 30


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (number + 1, 5), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "images")
    for number in range(COUNT):
        store.put(f"{number:03}.png", picture(number))
    return store


@pytest.fixture
def refs(store: LocalStore) -> list[ImageRef]:
    return [ImageRef(*info) for info in store.list()]


@pytest.fixture
def source() -> Source:
    return Source(uri="images")


class Counting(LocalStore):
    """A folder that remembers what was read, and can be made to fail or to wait."""

    def __init__(self, root: Path, before: Callable[[str], None] = lambda key: None) -> None:
        super().__init__(root)
        self.read: list[str] = []
        self.before = before

    def get(self, key: str) -> Blob:
        self.read.append(key)
        self.before(key)
        return super().get(key)


@pytest.mark.parametrize("threads", [1, 4, 64])
def test_order_and_content(store: LocalStore, refs: list[ImageRef], source: Source, threads: int) -> None:
    found = list(acquire(refs, store, source, threads))
    assert [item.ref for item in found] == refs
    for number, item in enumerate(found):
        assert item.failed is None
        assert item.image is not None
        assert item.image.pixels.shape == (5, number + 1, 3)
        assert np.all(item.image.pixels[..., 0] == number)


def test_nothing_planned(store: LocalStore, source: Source) -> None:
    assert list(acquire([], store, source, 2)) == []


def failures(items: Iterator[Acquired]) -> dict[str, str]:
    return {item.ref.key: item.failed.reason for item in items if item.failed is not None}


def test_each_bad_object_is_one_failed_row(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    store.delete("002.png")
    store.put("004.png", picture(29))
    store.put("006.png", b"")
    refs = [ImageRef(*info) if info.key == "006.png" else ref for info, ref in zip_listed(store, refs)]
    found = list(acquire(refs, store, source, 3))
    assert [item.ref for item in found] == refs
    assert failures(iter(found)) == {
        "002.png": "deleted since it was listed",
        "004.png": "changed since it was listed; the next run will take it",
        "006.png": "the file has zero bytes",
    }
    assert all((item.image is None) != (item.failed is None) for item in found)
    assert [item.failed.step for item in found if item.failed] == ["fetch", "fetch", "acquire"]


def zip_listed(store: LocalStore, refs: list[ImageRef]) -> list[tuple[ImageRef, ImageRef]]:
    now = {info.key: info for info in store.list()}
    return [(ImageRef(*now.get(ref.key, ref)), ref) for ref in refs]


def test_empty_etag_matches_any(store: LocalStore, source: Source) -> None:
    ref = ImageRef("003.png", "", -1)
    (item,) = acquire([ref], store, source, 1)
    assert item.failed is None


def test_too_large_is_not_fetched(store: LocalStore, refs: list[ImageRef], tmp_path: Path) -> None:
    counting = Counting(store.root)
    small = Source(uri="x", max_image_mb=1e-6)
    planned = [refs[0], ImageRef(refs[1].key, "", -1)]
    reasons = failures(acquire(planned, counting, small, 2))
    assert counting.read == []
    assert all(reason.startswith("too large: ") and "max_image_mb, 1e-06" in reason for reason in reasons.values())
    assert len(reasons) == 2


def test_unknown_size_of_a_missing_object(store: LocalStore, source: Source) -> None:
    assert failures(acquire([ImageRef("no.png", "", -1)], store, source, 1)) == {
        "no.png": "deleted since it was listed"
    }


def test_max_pixels_is_passed_on(store: LocalStore, refs: list[ImageRef]) -> None:
    reasons = failures(acquire(refs, store, Source(uri="x", max_pixels=100), 2))
    assert set(reasons) == {f"{number:03}.png" for number in range(20, COUNT)}


def test_store_error_of_one_object(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    def fail(key: str) -> None:
        if key == "007.png":
            raise StoreError("slow down,\nplease")

    reasons = failures(acquire(refs, Counting(store.root, fail), source, 4))
    assert reasons == {"007.png": "unforeseen StoreError: slow down, please"}


class Cutting(LocalStore):
    """A store whose answers are cut so many times, with a length that fits what comes."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self.times = times

    def get(self, key: str) -> Blob:
        whole = super().get(key)
        if key != "007.png" or self.times == 0:
            return whole
        self.times -= 1
        return Blob(whole.data[:-9], whole.etag)


def test_fewer_bytes_than_are_listed_are_read_again(
    store: LocalStore, refs: list[ImageRef], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vouch_labels.tasks.acquire._CUT_WAIT_S", 0.001)
    tries = source.s3.max_attempts
    assert failures(acquire(refs, Cutting(store.root, tries - 1), source, 4)) == {}
    reasons = failures(acquire(refs, Cutting(store.root, tries), source, 4))
    assert reasons == {
        "007.png": "unforeseen StoreError: fewer or more bytes come than are listed, each time; "
        "look at the network and the store"
    }


def test_an_archived_object_is_to_be_restored(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    def archived(key: str) -> None:
        if key in ("007.png", "009.png"):
            raise ObjectArchivedError(f"cannot read {store.uri}/{key}: archived")

    reasons = failures(acquire(refs, Counting(store.root, archived), source, 4))
    assert reasons == {"007.png": ARCHIVED, "009.png": ARCHIVED}


def test_reasons_do_not_name_the_object(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    def fail(key: str) -> None:
        raise StoreError(f"cannot read {store.uri}/{key}: the connection broke off")

    reasons = failures(acquire(refs, Counting(store.root, fail), source, 4))
    assert set(reasons.values()) == {"unforeseen StoreError: the connection broke off"}


def refuse(key: str) -> None:
    if key == "007.png":
        raise StoreAccessError("no permission")


class Bucket(Counting):
    """No file of it lies on this machine."""

    def local_path(self, key: str) -> None:
        return None


def test_a_bucket_that_refuses_ends_it(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    with pytest.raises(StoreAccessError, match="no permission"):
        list(acquire(refs, Bucket(store.root, refuse), source, 4))


def test_an_object_that_is_denied_is_one_bad_image(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    def deny(key: str) -> None:
        if key == "007.png":
            raise ObjectRefusedError("not yours")

    reasons = failures(acquire(refs, Bucket(store.root, deny), source, 4))
    assert reasons == {"007.png": DENIED}


def test_a_file_without_permission_is_one_bad_file(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    assert failures(acquire(refs, Counting(store.root, refuse), source, 4)) == {"007.png": "no permission"}


def test_window_is_bounded(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    counting = Counting(store.root)
    items: Any = acquire(refs, counting, source, 3)
    for consumed in range(1, 11):
        next(items)
        assert len(counting.read) <= consumed + 6
    items.close()
    assert len(counting.read) < COUNT


def test_with_little_memory_images_come_one_by_one(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    """Each image may take 12 MiB and a little of the 17, so none is decoded ahead of its turn."""
    items = list(acquire(refs, store, source, 3, 17))
    assert [item.ref for item in items] == refs
    assert all(item.image is not None for item in items)
    assert memory_of(17).held == 0


def test_what_waits_for_memory_ends_when_the_consumer_stops(
    store: LocalStore, refs: list[ImageRef], source: Source
) -> None:
    items: Any = acquire(refs, store, source, 4, 17)
    next(items)
    items.close()
    assert (memory_of(17).held, memory_of(17).decoding) == (0, 0)


def test_an_image_for_which_there_is_no_room_fails_and_says_what_to_do(
    store: LocalStore, refs: list[ImageRef], source: Source
) -> None:
    (reason,) = set(failures(acquire(refs[:1], store, source, 1, 8)).values())
    assert reason == (
        "too large to decode: 1 x 5 may need 12 MiB, and one image gets at most 6 of run.decode_memory_mb; "
        "raise that and run again with --retry-failed"
    )


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
@pytest.mark.parametrize("times", [1, 2])
def test_too_little_memory_is_tried_again_alone_and_is_no_damage(
    store: LocalStore,
    refs: list[ImageRef],
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    times: int,
) -> None:
    """The eighth image fails once, or for good; then it is a matter of every run, like a file that was not fetched."""
    left = [times]
    held = []
    read = pixels.read_upright

    def short(image: Any, *arguments: Any) -> Any:
        if image.size == (8, 5):
            held.append(memory_of(DEFAULT_MB).decoding)
            if left[0]:
                left[0] -= 1
                raise error
        return read(image, *arguments)

    monkeypatch.setattr(decoding, "read_upright", short)
    items = list(acquire(refs, store, source, 4))
    reasons = {item.ref.key: item.failed.reason for item in items if item.failed}
    assert held[1] == 1
    if times == 1:
        assert reasons == {}
    else:
        assert reasons == {"007.png": "unforeseen MemoryError: decoding it may need 12 MiB; the next run tries again"}
        assert items[7].failed.step == "fetch"


@pytest.mark.parametrize("times", [1, 2])
def test_too_little_memory_for_a_file(store: LocalStore, refs: list[ImageRef], source: Source, times: int) -> None:
    left = [times]

    def short(key: str) -> None:
        if key == "007.png" and left[0]:
            left[0] -= 1
            raise MemoryError

    reasons = failures(acquire(refs, Counting(store.root, short), source, 4))
    expected = {"007.png": "unforeseen MemoryError: its file has 0.0 MB; the next run tries again"}
    assert reasons == ({} if times == 1 else expected)


def test_a_large_file_without_an_extension_is_not_read(store: LocalStore, source: Source) -> None:
    counting = Counting(store.root)
    (item,) = acquire([ImageRef("core", "", 10**12)], counting, source, 1)
    assert item.failed.skip
    assert counting.read == []


def test_threads_end_when_the_consumer_stops(store: LocalStore, refs: list[ImageRef], source: Source) -> None:
    def workers() -> int:
        return sum(thread.name.startswith("acquire") for thread in threading.enumerate())

    before = workers()
    items = acquire(refs, store, source, 4)
    next(items)
    assert workers() > before
    del items
    gc.collect()
    assert workers() == before


def test_threads_grow_as_long_as_the_consumer_waits_less_for_more_of_them() -> None:
    pace = Pace(64)
    found = [pace.threads]
    for wait in (10.0, 6.0, 4.0, 3.9, 3.9):  # seconds of waiting for 100 images
        pace.note(100, 20.0, wait)
        found.append(pace.threads)
    assert found == [8, 16, 32, 64, 32, 32]
    pace.again()
    pace.note(100, 20.0, 3.9)
    assert pace.threads == 64
    pace.note(100, 20.0, 2.0)
    assert pace.threads == 64  # there are no more, and they have helped


def test_threads_do_not_grow_where_the_consumer_is_the_slow_one() -> None:
    pace = Pace(64)
    for _ in range(5):
        pace.note(100, 20.0, 0.9)
    assert pace.threads == 8


@pytest.mark.parametrize("most", [1, 5])
def test_there_are_no_more_threads_than_may_be(most: int) -> None:
    pace = Pace(most)
    pace.note(100, 20.0, 20.0)
    assert pace.threads == most


def test_more_threads_are_at_work_once_there_may_be_more(
    store: LocalStore, refs: list[ImageRef], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = Pace(12, 2)
    under_way: list[str] = []
    most: list[int] = []
    enough = threading.Event()

    def wait(key: str) -> None:
        under_way.append(key)
        most.append(len(under_way))
        if pace.threads == 12:
            if len(under_way) == 12:
                enough.set()
            enough.wait(HANG_S)
        under_way.remove(key)

    def note(images: int, seconds: float, waited: float) -> None:
        pace.threads = 12

    monkeypatch.setattr(pace, "note", note)
    monkeypatch.setattr("vouch_labels.tasks.acquire.pace_of", lambda uri, most: pace)
    found = list(acquire(refs, Counting(store.root, wait), source))
    assert [item.ref for item in found] == refs
    assert enough.is_set()
    assert max(most) == 12


def test_what_a_source_needs_is_remembered(store: LocalStore) -> None:
    assert pace_of(store.uri, 32) is pace_of(store.uri, 32)
    assert pace_of(store.uri, 32) is not pace_of(f"{store.uri}/other", 32)
