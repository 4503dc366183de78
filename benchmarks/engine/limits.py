"""How much arithmetic an image takes, and how much the device can do."""

import time
from collections.abc import Callable
from typing import Final

from benchmarks.engine.loop import computing

SIDES: Final = {"cpu": 2048, "cuda": 8192}
REPETITIONS: Final = 10


def flops_of(work: Callable[[], object]) -> float:
    """Floating-point operations of matrix products, convolutions and attention in some work: 2 x multiply-adds."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def matmul_peak(device: str, mode: str) -> float:
    """FLOP/s of a large square matrix product, the best of some.

    Args:
        device: cpu or cuda:N.
        mode: fp32, TF32 or bf16.
    """
    with computing(mode, device):
        return _peak(device, mode)


def _peak(device: str, mode: str) -> float:
    import torch

    side = SIDES[device.partition(":")[0]]
    dtype = torch.bfloat16 if mode == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        _ = matrix @ matrix
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
