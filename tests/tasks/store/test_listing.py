"""Listing a large bucket in several threads: the order and the keys of one thread, whatever the keys and the store."""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.schemas.errors import StoreError
from vouch_labels.tasks.store import listing
from vouch_labels.tasks.store.listing import Page, between, list_in_order
from vouch_labels.tasks.store.s3 import S3Store

WEIRD = [
    "",
    "/",
    "//",
    "//x",
    "/a",
    "a",
    "a/",
    "a//b",
    "a/b",
    "a0",
    "~",
    "~~",
    "ä",
    "a/\U0001f600",
    "b/~/x",
    "x y+z%20",
]


class Bucket:
    """Keys that come page by page, as from S3."""

    def __init__(self, keys: Sequence[str], on_a_page: int) -> None:
        self.keys, self.on_a_page = list(keys), on_a_page
        self.asked: list[tuple[str, str]] = []

    def __call__(self, after: str, token: str) -> Page:
        self.asked.append((after, token))
        start = int(token) if token else self.start(after)
        rows = [(key, f"tag of {key}", len(key)) for key in self.keys[start : start + self.on_a_page]]
        end = start + self.on_a_page
        return Page(rows, str(end) if end < len(self.keys) else "")

    def start(self, after: str) -> int:
        return bisect_right(self.keys, after) if after else 0


def names(rows: Iterator[tuple[str, str, int]]) -> list[str]:
    return [key for key, _, _ in rows]


SHAPES: dict[str, Callable[[int], str]] = {
    "folders": lambda number: f"camera-{number % 7:02d}/{number:06d}.jpg",
    "flat": lambda number: f"data/raw/img_{number:06d}.jpg",
    "two a folder": lambda number: f"{number // 2:05d}/{number % 2}.jpg",
    "hashes": lambda number: f"{number * 2654435761 % 2**32:08x}",
    "first of another kind": lambda number: f"a{number}" if number < 20 else f"big/{number:06d}",
    "behind every guess": lambda number: f"~~~{number:06d}",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_it_is_the_listing_of_one_thread(shape: str, threads: int) -> None:
    keys = sorted(map(SHAPES[shape], range(2_000)))
    bucket = Bucket(keys, 10)
    rows = list(list_in_order(bucket, threads, "list"))
    assert rows == [(key, f"tag of {key}", len(key)) for key in keys]
    assert len(bucket.asked) == 200 if threads == 1 else len(bucket.asked) < 600


@given(
    keys=st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(WEIRD), max_size=90)
)
@settings(deadline=None)
def test_any_keys(keys: set[str]) -> None:
    assert names(list_in_order(Bucket(sorted(keys - {""}), 2), 3, "list")) == sorted(keys - {""})


@given(
    ends=st.tuples(st.text(max_size=5), st.text(max_size=5)).filter(lambda ends: ends[0] != ends[1]),
    letters=st.sets(st.characters()),
    most=st.integers(0, 6),
)
def test_a_cut_lies_between(ends: tuple[str, str], letters: set[str], most: int) -> None:
    low, high = sorted(ends)
    middle = between(low, high, letters, most)
    assert middle is None or low < middle < high


def test_a_cut_halves_what_lies_between() -> None:
    assert between("cam1/7", "cam9/1", set("0123456789"), 3) == "cam5"
    assert between("cam1/7", "cam9/1", set("0123456789"), 2) is None  # keys of one page differ there
    assert between("cam3/9", "cam4/1", set("0123456789/"), 3) == "cam4"


def test_several_requests_are_under_way_together() -> None:
    bucket = Bucket([f"{number:06d}" for number in range(5_000)], 10)
    under_way: list[str] = []
    together: list[int] = []

    def ask(after: str, token: str) -> Page:
        under_way.append(token)
        together.append(len(under_way))
        time.sleep(0.001)  # gives the other threads a turn
        under_way.remove(token)
        return bucket(after, token)

    assert names(list_in_order(ask, 4, "list")) == bucket.keys
    assert max(together) == 4


@pytest.mark.parametrize(("pages", "requests"), [(1, 1), (2, 2), (3, 3)])
def test_a_few_pages_cost_a_request_each(pages: int, requests: int) -> None:
    bucket = Bucket([f"{number:06d}" for number in range(10 * pages)], 10)
    assert names(list_in_order(bucket, 8, "list")) == bucket.keys
    assert len(bucket.asked) == requests


def test_who_takes_a_few_causes_few_requests() -> None:
    bucket = Bucket([f"{number:06d}" for number in range(10_000)], 10)
    before = threading.active_count()
    rows = list_in_order(bucket, 8, "list")
    assert names(islice(rows, 5)) == bucket.keys[:5]
    assert len(bucket.asked) == 1
    assert names(islice(rows, 40)) == bucket.keys[5:45]
    rows.close()  # type: ignore[attr-defined] # a generator
    asked = len(bucket.asked)
    assert threading.active_count() <= before
    assert len(bucket.asked) == asked


def test_what_waits_for_its_turn_goes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_HELD", 2_000)
    packed: list[bool] = []
    pack = listing._Listing._pack

    def noted(self: Any, rows: Any) -> bytes | tuple[int, int]:
        page = pack(self, rows)
        packed.append(isinstance(page, bytes))
        assert self._held <= 2_000
        return page

    monkeypatch.setattr(listing._Listing, "_pack", noted)
    bucket = Bucket([f"{number:06d}" for number in range(3_000)], 10)
    slowly = []
    for key, _, _ in list_in_order(bucket, 4, "list"):
        slowly.append(key)
        if len(slowly) == 40:
            time.sleep(0.05)  # the others go on meanwhile
    assert slowly == bucket.keys
    assert set(packed) == {True, False}


def test_a_store_that_begins_at_the_first_key_always() -> None:
    class Deaf(Bucket):
        def start(self, after: str) -> int:
            return 0

    bucket = Deaf([f"{number:06d}" for number in range(1_000)], 10)
    assert names(list_in_order(bucket, 4, "list")) == bucket.keys


def test_a_store_without_an_order_is_listed_by_one_thread() -> None:
    keys = [f"{number * 7919 % 1000:06d}" for number in range(1_000)]
    bucket = Bucket(keys, 10)
    assert names(list_in_order(bucket, 4, "list")) == keys
    assert len(bucket.asked) == 100


def test_a_store_that_shows_late_that_it_has_no_order() -> None:
    keys = [f"{number:06d}" for number in range(1_000)]
    keys[500], keys[501] = keys[501], keys[500]
    bucket = Bucket(keys, 10)
    with pytest.raises(StoreError, match=r"cannot list b: .*; set s3.threads: 1"):
        list(list_in_order(bucket, 4, "list b"))
    assert names(list_in_order(bucket, 1, "list b")) == keys


def test_an_error_ends_it() -> None:
    bucket = Bucket([f"{number:06d}" for number in range(1_000)], 10)

    def ask(after: str, token: str) -> Page:
        if len(bucket.asked) == 50:
            raise StoreError("gone")
        return bucket(after, token)

    before = threading.active_count()
    with pytest.raises(StoreError, match="gone"):
        list(list_in_order(ask, 4, "list"))
    assert threading.active_count() <= before


def test_a_bucket_of_weird_keys(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    keys = [*filter(None, WEIRD), *(f"n/{number}" for number in range(30))]
    for key in keys:
        s3_store.client.put_object(Bucket=s3_store.bucket, Key=s3_store.prefix + key, Body=key.encode())
    alone = S3Store(s3_store.bucket, "some/prefix", s3_store.options.model_copy(update={"threads": 1}))
    listed = list(s3_store.list())
    assert listed == list(alone.list())
    assert [info.key for info in listed] == sorted(key for key in keys if not key.endswith("/"))
    assert [info.key for info in s3_store.list("n/1")] == sorted(key for key in keys if key.startswith("n/1"))
    assert all(info.size == len(info.key.encode()) for info in listed)
