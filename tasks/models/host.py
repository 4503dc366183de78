"""What the host does for a device: spreads work on images over its cores, and brings arrays over."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS: Final = 8


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function to each item, in threads: for Pillow and large copies, which let go of the interpreter's lock.

    Returns:
        One result an item, in order.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1, len(items))
    if threads < 2:
        return [function(item) for item in items]
    # Not kept: a process that is forked would inherit threads that do not run.
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        return list(pool.map(function, items))


def to_device(array: NDArray[Any], device: str) -> "Tensor":
    """Bring an array to a device, without waiting for what a GPU has yet to do.

    Args:
        array: Of a type that torch has.
        device: cpu, cuda:N or mps. On a CPU the tensor shares the array's memory.
    """
    import torch

    # CUDA has taken ordinary memory off when the call returns; other devices do not promise that.
    return torch.from_numpy(array).to(device, non_blocking=device.startswith("cuda"))
