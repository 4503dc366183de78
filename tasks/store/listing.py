"""Lists a bucket in the order of its keys; a large one in several threads, each a range of keys.

An answer holds 1,000 keys and a token for the next one, so one thread waits a round trip for each. `StartAfter` begins
anywhere else: a thread without work cuts the part that another has still to list in two. Where to cut is guessed from
the keys seen so far, so folders are not needed; a guess behind all keys costs one request, which nobody waits for.
"""

import marshal
import tempfile
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, Final, NamedTuple

from vouch_labels.schemas.errors import StoreError

Row = tuple[str, str, int]
"""Key, ETag and bytes of an object."""

MOST_HELD: Final = 32 << 20
"""Bytes of listed keys that wait in memory for their turn, about 400,000 keys; more wait in a temporary file."""

PAGES_ALONE: Final = 3
"""Pages that are listed one after the other: most listings have no more."""

_LAST: Final = "~"
"""Sorts behind every other ASCII character that is seen; no key is lost where it does not."""


class Page(NamedTuple):
    """One answer to a listing."""

    rows: Sequence[Row]
    token: str
    """What the next page is asked for with; empty: this is the last one."""


Ask = Callable[[str, str], Page]
"""Asks for a page: after which key the listing begins (empty: at the first key), and the token of the page before."""


class _NoRangesError(Exception):
    """The store pays no regard to where a listing should begin."""


def list_in_order(ask: Ask, threads: int, what: str) -> Iterator[Row]:
    """Yield all objects in the order in which one thread would list them, which is that of UTF-8 bytes.

    The first `PAGES_ALONE` pages cost a request each, further threads start only when more is wanted. Memory is bounded
    by `MOST_HELD`, whatever the number of objects.

    Args:
        ask: Asks for a page; safe for use from several threads.
        threads: Requests under way at most; with 1 the store's order may be any.
        what: What is listed, for errors.

    Raises:
        StoreError: The store does not list in the order of UTF-8 bytes, and there are several threads.
        Exception: Whatever `ask` raises.
    """
    page, alone = Page((), ""), 0
    while threads == 1 or alone < PAGES_ALONE or not page.rows:
        page = ask("", page.token)
        yield from page.rows
        if not page.token:
            return
        alone += 1
        if not _ascends(page.rows):
            threads = 1
    last = page.rows[-1][0]
    try:
        with (
            tempfile.TemporaryFile(prefix="vouch-", buffering=0) as file,
            closing(_Listing(ask, page, what, file).pages(threads)) as pages,
        ):
            for rows in pages:
                if rows:
                    yield from rows
                    last = rows[-1][0]
    except _NoRangesError:
        yield from (row for row in list_in_order(ask, 1, what) if row[0] > last)


def _ascends(rows: Sequence[Row]) -> bool:
    # Strings compare by code points, which is the order of their UTF-8 bytes.
    return all(one[0] < other[0] for one, other in pairwise(rows))


@dataclass(eq=False)
class _Range:
    """Keys behind `at` up to `upto`, itself included, that one thread lists."""

    at: str
    """The last key listed so far; before the first page, where the listing begins."""
    upto: str | None
    """None: up to the last key of all. Only the last range is open so."""
    token: str = ""
    following: "_Range | None" = None
    pages: deque[bytes | tuple[int, int]] = field(default_factory=deque)
    """What was listed and has not been taken, packed: in memory, or place and length in the temporary file."""
    done: bool = False
    since_cut: int = 0
    """Pages since it began or was cut. The more it had without an end, the more is to be expected."""
    shared: int = 0
    """Letters that all keys of its last page have in common: cutting later ones apart would cut within a page."""


class _Listing:
    def __init__(self, ask: Ask, page: Page, what: str, file: IO[bytes]) -> None:
        self._ask, self._what, self._file = ask, what, file
        self._held = self._spilled = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._error: BaseException | None = None
        low, high = page.rows[0][0], page.rows[-1][0]
        self._first = _Range(high, None, page.token, since_cut=1, shared=_shared(low, high))
        self._running = [self._first]
        self._seen = set(low + high)
        self._group = -1
        """Letters of the group of keys behind which the open range is cut next."""

    def pages(self, threads: int) -> Generator[list[Row]]:
        part: _Range | None = self._first
        with ThreadPoolExecutor(threads, "list") as pool:
            try:
                pool.submit(self._work, self._first)
                for _ in range(threads - 1):
                    pool.submit(self._work, None)
                while part is not None:
                    while (rows := self._next(part)) is not None:
                        yield rows
                    part = part.following
            finally:
                with self._changed:
                    self._stopped = True
                    self._changed.notify_all()

    def _next(self, part: _Range) -> list[Row] | None:
        with self._changed:
            self._changed.wait_for(lambda: part.pages or part.done or self._error)
            if self._error is not None:
                raise self._error
            return self._unpack(part.pages.popleft()) if part.pages else None

    def _work(self, part: _Range | None) -> None:
        try:
            while part := part or self._cut_one():
                self._list_page(part)
                if part.done:
                    part = None
        except BaseException as error:
            # Raised again in the consumer's thread.
            with self._changed:
                self._error = self._error or error
                self._stopped = True
                self._changed.notify_all()

    def _cut_one(self) -> _Range | None:
        """Wait for a range that can be cut in two, and give the second part; None: nothing is left to do."""
        with self._changed:
            while self._running and not self._stopped:
                largest = max(self._running, key=lambda part: part.since_cut)
                if not largest.since_cut:
                    self._changed.wait()
                    continue
                largest.since_cut = 0
                middle = self._middle(largest)
                if middle is not None:
                    other = _Range(middle, largest.upto, following=largest.following)
                    largest.upto, largest.following = middle, other
                    self._running.append(other)
                    return other
        return None

    def _middle(self, part: _Range) -> str | None:
        if part.upto is not None:
            return between(part.at, part.upto, self._seen, part.shared)
        # Behind the keys that begin like those of a page, then behind the larger group with a letter less, and so on,
        # until nothing follows: that range has an end then.
        if self._group < 0:
            self._group = max(part.shared - 1, 0)
        while self._group >= 0:
            middle = part.at[: self._group] + _LAST
            self._group -= 1
            if middle > part.at:
                return middle
        return None

    def _list_page(self, part: _Range) -> None:
        if self._stopped:
            part.done = True
            return
        page = self._ask("" if part.token else part.at, part.token)
        rows = list(page.rows)
        if rows and rows[0][0] <= part.at and not part.token:
            raise _NoRangesError
        if rows and not (part.at < rows[0][0] and _ascends(rows)):
            raise StoreError(
                f"cannot {self._what}: the store does not list keys in the order of their bytes; set s3.threads: 1"
            )
        with self._changed:
            ended = not page.token
            if rows:
                part.at = rows[-1][0]
                part.shared = _shared(rows[0][0], part.at)
                self._seen.update(part.at)
                if part.upto is not None and part.at > part.upto:
                    ended = True
                    del rows[bisect_right(rows, part.upto, key=lambda row: row[0]) :]
            if rows:
                part.pages.append(self._pack(rows))
            part.token = page.token
            part.since_cut += 1
            if ended:
                part.done = True
                self._running.remove(part)
            self._changed.notify_all()

    def _pack(self, rows: list[Row]) -> bytes | tuple[int, int]:
        data = marshal.dumps(rows)
        if self._held + len(data) <= MOST_HELD:
            self._held += len(data)
            return data
        place = self._file.seek(self._spilled)
        self._file.write(data)
        self._spilled += len(data)
        return place, len(data)

    def _unpack(self, page: bytes | tuple[int, int]) -> list[Row]:
        if isinstance(page, bytes):
            self._held -= len(page)
        else:
            place, size = page
            self._file.seek(place)
            page = self._file.read(size)
        rows: list[Row] = marshal.loads(page)  # noqa: S302 - our own bytes
        return rows


def between(low: str, high: str, letters: set[str], most: int) -> str | None:
    """Give a text behind `low` and before `high`, half-way as far as `letters` tell; None where none is found.

    It shares at most `most` letters with `low`, and its last one is the middle one of those that could follow.
    """
    place = _shared(low, high)
    while place <= min(most, len(low)):
        after = low[place] if place < len(low) else ""
        before = high[place] if high.startswith(low[:place]) else _LAST
        known = sorted(letter for letter in letters if after < letter < before)
        if known:
            return low[:place] + known[len(known) // 2]
        if high.startswith(low[:place]) and len(high) > place + 1 and after < before:
            return high[: place + 1]
        place += 1
    return None


def _shared(one: str, other: str) -> int:
    """How many letters two texts begin with alike."""
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
