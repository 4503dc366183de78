"""What every backend guarantees."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import HANG_S
from vouch_labels.schemas.errors import ObjectMissingError
from vouch_labels.tasks.store.open import check_readable, check_writable
from vouch_labels.tasks.store.store import AHEAD, Store, map_ordered

KEYS = [
    "a",
    "a.txt",
    "a0",
    "b/1.jpg",
    "b-c",
    "b/1/2.jpg",
    "b.d/x",
    "z é/ü ß.png",
    "z/😀.jpg",
    "z/\uffee.jpg",
    "with space+%2F&?#.jpg",
]


def test_what_is_put_is_read_back_with_the_tag_that_the_listing_shows(store: Store) -> None:
    assert store.put("parts/x.parquet", b"one")
    info = store.stat("parts/x.parquet")
    blob = store.get("parts/x.parquet")
    assert blob.data == b"one"
    assert info == ("parts/x.parquet", blob.etag, 3)
    assert list(store.list()) == [info]


def test_replacing_an_object_changes_its_tag(store: Store) -> None:
    store.put("x", b"one")
    before = store.get("x").etag
    store.put("x", b"other")
    assert store.get("x").data == b"other"
    assert store.get("x").etag != before


def test_listing_is_in_byte_order_of_the_keys(store: Store) -> None:
    for key in KEYS:
        store.put(key, key.encode())
    listed = [info.key for info in store.list()]
    assert listed == sorted(KEYS, key=str.encode)
    assert all(store.get(key).data == key.encode() for key in listed)


@pytest.mark.parametrize("prefix", ["", "b", "b/", "b/1", "b/2", "z/", "nowhere/at/all", "b//"])
def test_listing_takes_any_prefix(store: Store, prefix: str) -> None:
    keys = ["a", "b-c", "b.d/x", "b/1.jpg", "b/12/x", "b/2", "z/x"]
    for key in keys:
        store.put(key, b"")
    assert [info.key for info in store.list(prefix)] == [key for key in keys if key.startswith(prefix)]


def test_nothing_is_listed_before_the_first_write(store: Store) -> None:
    assert list(store.list()) == []
    assert list(store.list("runs/x/")) == []


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty").data == b""
    assert store.stat("empty") is not None


def test_a_missing_object_is_named(store: Store) -> None:
    assert store.stat("no/such") is None
    with pytest.raises(ObjectMissingError, match="no/such"):
        store.get("no/such")
    store.delete("no/such")


def test_delete_removes(store: Store) -> None:
    store.put("x/y", b"1")
    store.delete("x/y")
    assert store.stat("x/y") is None
    assert list(store.list()) == []


def test_if_absent_writes_once(store: Store) -> None:
    assert store.put("lock", b"first", if_absent=True)
    assert not store.put("lock", b"second", if_absent=True)
    assert store.get("lock").data == b"first"
    store.delete("lock")
    assert store.put("lock", b"third", if_absent=True)


def test_of_many_conditional_writers_one_wins(store: Store) -> None:
    for attempt in range(5):
        start = threading.Barrier(6)

        def claim(name: int, key: str = f"claim-{attempt}", start: threading.Barrier = start) -> bool:
            start.wait()
            return store.put(key, str(name).encode(), if_absent=True)

        with ThreadPoolExecutor(6) as pool:
            won = list(pool.map(claim, range(6)))
        assert won.count(True) == 1
        assert store.get(f"claim-{attempt}").data == str(won.index(True)).encode()


def test_a_streamed_object_appears_whole(store: Store) -> None:
    with store.open_writer("exports/big.json") as file:
        for _ in range(300):
            file.write(b"x" * 65536)
        assert store.stat("exports/big.json") is None
    assert store.get("exports/big.json").data == b"x" * 65536 * 300
    with store.open_reader("exports/big.json") as file:
        file.seek(-3, 2)
        assert file.read() == b"xxx"


def test_a_missing_object_cannot_be_opened(store: Store) -> None:
    with pytest.raises(ObjectMissingError, match="nowhere"), store.open_reader("nowhere"):
        pass


def test_a_stream_that_fails_leaves_what_was_there(store: Store) -> None:
    store.put("x", b"old")
    for error in (ZeroDivisionError(), FileNotFoundError(2, "gone", "/elsewhere"), ConnectionResetError()):
        with pytest.raises(type(error)) as raised, store.open_writer("x") as file:
            _write_and_raise(file, error)
        assert raised.value is error
    assert store.get("x").data == b"old"
    assert [info.key for info in store.list()] == ["x"]


def test_a_usable_store_passes_the_checks_and_nothing_stays(store: Store) -> None:
    check_writable(store)
    check_readable(store)
    assert list(store.list()) == []
    store.put("x", b"1")
    check_readable(store)


def _write_and_raise(file: BinaryIO, error: Exception) -> None:
    file.write(b"new")
    raise error


@given(st.lists(st.integers(), max_size=60), st.integers(1, 4))
def test_results_come_in_order(items: list[int], threads: int) -> None:
    assert list(map_ordered(lambda item: item * 2, items, threads)) == [item * 2 for item in items]


def test_only_a_few_items_are_drawn_ahead() -> None:
    drawn: list[int] = []
    results: Any = map_ordered(lambda item: item, (drawn.append(i) or i for i in range(1000)), 2)
    for expected in range(100):
        assert next(results) == expected
        assert len(drawn) <= expected + 1 + AHEAD * 2
    results.close()
    assert len(drawn) < 120


def test_calls_run_at_once() -> None:
    meet = threading.Barrier(3)
    # Each call waits for two others: one at a time would never end.
    assert len(list(map_ordered(lambda _: meet.wait(HANG_S), range(9), 3))) == 9


def test_an_error_comes_in_its_turn_and_ends_the_rest() -> None:
    seen: list[int] = []

    def fail_at_five(item: int) -> int:
        seen.append(item)
        if item == 5:
            raise ValueError(item)
        return item

    results = map_ordered(fail_at_five, range(1000), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(results)
    assert len(seen) < 30
