"""Applies a function to a stream of items in threads, in order and with a bounded number under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Items under way or waiting for their turn, a thread."""


def map_ordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield function(item) for every item, in the order of the items.

    Args:
        function: Called in a thread.
        items: Any number; drawn in the caller's thread, only `AHEAD` a thread before their results are taken.
        threads: How many calls run at once.

    Raises:
        Exception: Whatever the function raises, when its item's turn comes; items not yet begun are given up.
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
