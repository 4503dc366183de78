"""Takes items through stages that work side by side, each in a thread of its own, in order and bounded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Final, TypeVar

Item = TypeVar("Item")

_LOOK_UP: Final = 0.5
"""Seconds after which a wait is taken up anew: an exception that is set in a waiting thread comes through then."""


def staged(items: Iterable[Item], stages: Sequence[Callable[[Item], None]], name: str) -> Iterator[Item]:
    """Yield every item after all stages have changed it, in the order given.

    While a stage works on one item, the stage before it works on the next. At most one item a stage is under way,
    and one more waits. When the consumer stops early, what has not begun is cancelled and the threads end.

    Args:
        items: Taken from the consumer's thread, no sooner than there is room.
        stages: Each is only ever called from its own thread.
        name: Of the threads.

    Raises:
        Exception: What a stage raised, when its item's turn comes; or what `items` raised.
    """
    window: deque[Future[Item]] = deque()
    pools = [ThreadPoolExecutor(1, thread_name_prefix=f"{name}-{index}") for index in range(len(stages))]
    try:
        for item in items:
            future: Future[Item] = Future()
            future.set_result(item)
            for pool, stage in zip(pools, stages, strict=True):
                future = pool.submit(partial(_after, future, stage))
            window.append(future)
            if len(window) > len(stages):
                yield _result(window.popleft())
        while window:
            yield _result(window.popleft())
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown()


def _after(before: Future[Item], stage: Callable[[Item], None]) -> Item:
    item = before.result()
    stage(item)
    return item


def _result(future: Future[Item]) -> Item:
    while not future.done():
        wait([future], _LOOK_UP)
    return future.result()
