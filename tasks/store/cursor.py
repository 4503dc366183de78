"""Hands out items of a sequence that is cheap to read forward and dear to enter again, to many threads."""

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Final

from vouch_labels.schemas.errors import ContainerError

MOST_HELD: Final = 32 << 20
"""Bytes of items that were passed and are kept for threads that come late, where memory is plenty."""

Item = bytes | ContainerError
"""What stands at a place, or why it cannot be read."""


class Cursor:
    """Reads forward through the rows of a row group or the frames of a video, for threads that ask nearly in order.

    Of those that wait the one with the least number is served first; items that are passed on the way to another are
    kept for the threads that will ask for them, within a bound. Only who asks for what is behind, and not kept, or far
    ahead makes it begin again.
    """

    def __init__(
        self,
        count: int,
        enter: Callable[[int], Generator[tuple[int, Item], None, None]],
        is_far: Callable[[int, int], bool],
        most_held: int,
    ) -> None:
        """Begin nowhere.

        Args:
            count: How many items there are.
            enter: Yields number and item of the items from a number on, or from a little before it, without a gap.
            is_far: Whether it is cheaper to enter at the second number than to read on from the first.
            most_held: Bytes of items that are kept.
        """
        self._count, self._enter, self._is_far, self._most = count, enter, is_far, most_held
        self._changed = threading.Condition()
        self._asked: list[int] = []
        self._busy = False
        self._items: Generator[tuple[int, Item], None, None] | None = None
        self._next = -1
        self._kept: OrderedDict[int, Item] = OrderedDict()
        self._served: set[int] = set()
        self._bytes = 0

    def item(self, number: int) -> bytes:
        """Give the item of a number.

        Raises:
            ContainerError: It cannot be read.
            StoreError: The store failed.
        """
        with self._changed:
            heapq.heappush(self._asked, number)
            self._changed.wait_for(lambda: not self._busy and self._asked[0] == number)
            heapq.heappop(self._asked)
            self._busy = True
        try:
            found = self._find(number)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        if isinstance(found, ContainerError):
            raise found
        return found

    def _find(self, number: int) -> Item:
        if number not in self._kept:
            if self._items is None or number < self._next or self._is_far(self._next, number):
                self._leave()
                self._items = self._enter(number)
            try:
                self._read_to(self._items, number)
            except BaseException:
                self._leave()
                raise
        if number not in self._kept:
            return ContainerError("damaged: it ends before this place")
        self._served.add(number)
        return self._kept[number]

    def _read_to(self, items: Generator[tuple[int, Item], None, None], number: int) -> None:
        for at, item in items:
            self._next = at + 1
            self._keep(at, item, number)
            if at >= number:
                break
        if self._next == self._count or number not in self._kept:
            self._leave()

    def _leave(self) -> None:
        """Give back what reading holds: a decoder has frames in memory."""
        if self._items is not None:
            self._items.close()
        self._items, self._next = None, -1

    def _keep(self, at: int, item: Item, wanted: int) -> None:
        self._drop(at)
        self._kept[at] = item
        self._bytes += _size(item)
        # Each is asked for once, as a rule; then those go that were passed the longest ago.
        while self._bytes > self._most:
            place = next((one for one in self._kept if one in self._served), None)
            if place is None:
                place = next(iter(self._kept))
            if place in (at, wanted):
                break
            self._drop(place)

    def _drop(self, number: int) -> None:
        self._served.discard(number)
        with suppress(KeyError):
            self._bytes -= _size(self._kept.pop(number))


def _size(item: Item) -> int:
    return len(item) if isinstance(item, bytes) else 0
