"""The memory of one side, in a process of its own."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from benchmarks.engine.fixed_boxes import register
from benchmarks.engine.setting import Setting
from benchmarks.engine.sides import Sides
from benchmarks.harness.child import in_child
from flows.prefect_server import prepare_environment
from tasks.bench.timing import settled

IN_MEMORY = "in memory"
FILES = "files"


class Peak(BaseModel):
    """Most memory that a side held: weights, images, Python and its packages."""

    host_bytes: int
    device_bytes: int
    """That torch had allocated on the GPU; 0 on a CPU."""


def peak_of(setting: Setting, block: str, side: str) -> Peak:
    """Load a side, warm it up and run it once, with nothing beside it.

    Args:
        setting: What it is given.
        block: IN_MEMORY or FILES.
        side: Its name in that block.
    """
    run = in_child(hold_alone, setting=setting, block=block, side=side)
    return Peak(host_bytes=run.peak_bytes, device_bytes=run.value)


def hold_alone(setting: Setting, block: str, side: str) -> int:
    """Do so in this process, which must be fresh; gives the bytes on the GPU."""
    import torch

    prepare_environment()
    register()
    with TemporaryDirectory(prefix="vouch-bench-") as folder:
        sides = Sides(setting)
        way = (sides.in_memory() if block == IN_MEMORY else sides.on_files(Path(folder)))[side]
        if not sides.on_gpu:
            way.work()
            way.work()
            return 0
        # The gauge of growing batches sets torch's own peak back.
        settled(way.work)
        settled(way.work)
        torch.cuda.reset_peak_memory_stats(sides.device)
        way.work()
        return torch.cuda.max_memory_allocated(sides.device)
