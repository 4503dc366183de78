"""Repeats a measurement until nothing is compiled in it."""

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

MOST: Final = 8


def settled(work: Callable[[], Result], graphs: Callable[[], int] | None = None) -> Result:
    """Do some work again as long as it makes torch compile, which a long run does but once; the last result counts.

    Args:
        work: Is done at most MOST times.
        graphs: Counts what has been compiled; by default `compiled_graphs`.
    """
    count = graphs or compiled_graphs
    for _ in range(MOST - 1):
        before = count()
        result = work()
        if count() == before:
            return result
    return work()


def compiled_graphs() -> int:
    """Graphs that torch.compile has made in this process."""
    utils: Any = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])
