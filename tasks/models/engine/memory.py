"""Reads how much of a device's memory a batch takes and how much there is."""

from typing import Final, Protocol

SPARE: Final = 0.8
"""Share of the free memory that batches may take: the allocator splits what it has, and others use the device too."""
LANES: Final = 3
"""Models that may have a batch on the device at the same time: detector, segmenter, scorer."""


class Gauge(Protocol):
    """Measures one batch after the other, while nothing else computes on the device."""

    def start(self) -> None:
        """A batch begins."""

    def stop(self) -> tuple[int, int]:
        """Bytes that the batch took at most, and bytes that the next one may take."""
        ...


class CudaGauge:
    """The gauge of a CUDA device, by torch's allocator, whose figures are of the whole device."""

    def __init__(self, device: str) -> None:
        """Take the device's name, cuda:N."""
        self._device = device
        self._before = 0

    def start(self) -> None:
        """Forget the peak of what came before."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def stop(self) -> tuple[int, int]:
        """Bytes that the batch took at most, and a model's equal share of the bytes that batches may take."""
        import torch

        taken = torch.cuda.max_memory_allocated(self._device) - self._before
        free, _ = torch.cuda.mem_get_info(self._device)
        # What the allocator holds and nobody uses is free to the next batch.
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return taken, int((free + idle) * SPARE / LANES)


def gauge_of(device: str) -> Gauge | None:
    """The gauge of a device; None where memory cannot be read, or is the host's."""
    return CudaGauge(device) if device.startswith("cuda") else None
