"""CUDA streams, on which models that know nothing of each other share a device."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")


def on_own_stream(function: Callable[[Item], None], device: str, lane: int) -> Callable[[Item], None]:
    """Let a function queue its kernels and copies apart from those of other lanes.

    Without it, a lane that waits for its own results would wait for all that the others have queued.

    Args:
        function: Leaves no tensor on the device that another lane reads.
        device: cuda:N.
        lane: Its number; the same lane has the same stream always, for the allocator keeps memory by stream.
    """

    def run(item: Item) -> None:
        import torch

        with torch.cuda.device(device), torch.cuda.stream(_stream(device, lane)):
            function(item)

    return run


@cache
def _stream(device: str, lane: int) -> "torch.cuda.Stream":
    import torch

    del lane
    # What the models hold was put there on the stream of the thread that loaded them.
    torch.cuda.synchronize(device)
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch has no types here
    return stream
