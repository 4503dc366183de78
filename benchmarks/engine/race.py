"""Runs several ways to do the same work in turn, and takes medians."""

import statistics
import time
from collections.abc import Callable, Mapping

from pydantic import BaseModel


class Taken(BaseModel):
    """What one way took."""

    seconds: float
    """Wall-clock time, median."""
    cpu_seconds: float
    """CPU time of the process, median."""
    device_bytes: int
    """Most memory that torch had allocated on the GPU; 0 on a CPU."""


def race(ways: Mapping[str, Callable[[], object]], rounds: int, device: str) -> dict[str, Taken]:
    """Run each way once to warm up, then all of them in turn, `rounds` times.

    Args:
        ways: Name -> the work.
        rounds: At least 1.
        device: cpu or cuda:N.
    """
    import torch

    on_gpu = device.startswith("cuda")

    def run(way: Callable[[], object]) -> tuple[float, float, int]:
        if on_gpu:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        wall, cpu = time.perf_counter(), time.process_time()
        way()
        if on_gpu:
            torch.cuda.synchronize(device)
        ended = time.perf_counter() - wall, time.process_time() - cpu
        return *ended, torch.cuda.max_memory_allocated(device) if on_gpu else 0

    for way in ways.values():
        # Twice on a GPU, where batches grow first.
        for _ in range(2 if on_gpu else 1):
            run(way)
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(run(way))
    return {
        name: Taken(
            seconds=statistics.median(each[0] for each in runs),
            cpu_seconds=statistics.median(each[1] for each in runs),
            device_bytes=max(each[2] for each in runs),
        )
        for name, runs in found.items()
    }
