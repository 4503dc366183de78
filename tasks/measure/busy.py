"""The share of a time in which a GPU computes."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

_COPYING: Final = ("Memcpy", "Memset")


def gpu_busy(work: Callable[[], object]) -> float:
    """Do some work, and tell the share of its time in which at least one kernel ran, by torch's profiler.

    Args:
        work: Leaves nothing queued on the GPU.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return covered(kernels(profiler.events() or ())) / 1e6 / seconds


def kernels(events: Iterable["FunctionEvent"]) -> list[tuple[float, float]]:
    """Begin and end of each kernel of a profile, in microseconds; copies, which leave the GPU free, are no kernels."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation and not event.name.startswith(_COPYING)
    ]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: what several streams do at the same time counts once.

    Args:
        intervals: Begin and end of each, in any order.
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
