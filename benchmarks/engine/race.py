"""Runs several ways to do the same work in turn, and takes medians."""

import statistics
import time
from collections.abc import Mapping

from pydantic import BaseModel

from benchmarks.engine.way import Way
from tasks.bench.timing import gpu_busy, settled


class Taken(BaseModel):
    """What one way took."""

    images: int
    mode: str
    """fp32, TF32 or bf16."""
    seconds: float
    """Wall-clock time of all images, median."""
    cpu_seconds: float
    """CPU time of the process, median."""
    gpu_busy: float | None = None
    """Share of the time in which the GPU computed; None where that was not asked for."""

    @property
    def seconds_per_image(self) -> float:
        """Wall-clock time."""
        return self.seconds / self.images

    @property
    def cpu_seconds_per_image(self) -> float:
        """CPU time, never quite none."""
        return max(self.cpu_seconds, 1e-9) / self.images


Block = dict[str, Taken]
"""Ways to do the same work, by name."""


def race(ways: Mapping[str, Way], rounds: int, device: str, busy: bool = False) -> Block:
    """Warm each way up, then run all of them in turn, `rounds` times.

    Args:
        ways: Name -> the work.
        rounds: At least 1.
        device: cpu or cuda:N. On a GPU batches grow first, and ways run until nothing is compiled any more.
        busy: Whether each way is run once more under the profiler, where there is a GPU.
    """
    on_gpu = device.startswith("cuda")
    for way in ways.values():
        way.work()
        if on_gpu:
            settled(way.work)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(_timed(way, device if on_gpu else None))
    return {
        name: Taken(
            images=way.images,
            mode=way.mode,
            seconds=statistics.median(each[0] for each in found[name]),
            cpu_seconds=statistics.median(each[1] for each in found[name]),
            gpu_busy=gpu_busy(way.work) if busy and on_gpu else None,
        )
        for name, way in ways.items()
    }


def _timed(way: Way, gpu: str | None) -> tuple[float, float]:
    _wait(gpu)
    wall, cpu = time.perf_counter(), time.process_time()
    way.work()
    _wait(gpu)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(gpu: str | None) -> None:
    if gpu is not None:
        import torch

        torch.cuda.synchronize(gpu)
