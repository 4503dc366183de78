"""Runs a model over items in batches that fit the device's memory."""

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from schemas.campaign.models import BatchSize
from tasks.models.engine.memory import Gauge, gauge_of

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Batcher:
    """Splits work into batches, grows them while memory allows, and halves them when it runs out.

    Sizes are kept by the shape of the items, since larger ones take more memory. One batcher belongs to one model, so
    what one shard learned the next one starts with.
    """

    def __init__(
        self,
        name: str,
        size: BatchSize,
        start: int = 8,
        most: int = 64,
        device: str = "cpu",
        gauge: Gauge | None = None,
    ) -> None:
        """Settle where to begin.

        Args:
            name: The config key that sets the size, for the warning.
            size: Items a batch; auto: `start`, on CUDA more as far as memory takes it.
            start: Where auto begins, and stays where memory cannot be read.
            most: Where auto ends.
            device: cpu, cuda:N or mps.
            gauge: Reads the device's memory; by default that of `device`, where it has one.
        """
        self._name = name
        self._gauge = (gauge or gauge_of(device)) if size == "auto" else None
        self._most = most
        self._sizes: dict[Hashable, int] = {}
        self._settled: set[Hashable] = set()
        self.size = start if size == "auto" else size
        """Items in the first batch of a shape that was not seen yet."""

    def size_of(self, shape: Hashable) -> int:
        """Items in the next batch of a shape."""
        return self._sizes.get(shape, self.size)

    def run(
        self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]], shape: Hashable = ()
    ) -> list[Result]:
        """Apply `forward` to consecutive batches and join the results, in order.

        Args:
            items: Any number of items, none included.
            forward: Returns one result an item, on the host or at least computed.
            shape: What the memory that an item takes depends on; equal for all of these.

        Returns:
            One result an item.

        Raises:
            torch.OutOfMemoryError: Even one item does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size_of(shape)]
            answer = self._try(batch, forward, shape)
            if answer is not None:
                results.extend(answer)
        return results

    def _try(
        self, batch: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]], shape: Hashable
    ) -> Sequence[Result] | None:
        import torch

        # A batch that is not full says too little of what a greater one would take.
        growing = self._gauge is not None and shape not in self._settled and len(batch) == self.size_of(shape)
        try:
            return self._grow(batch, forward, shape, self._gauge) if growing and self._gauge else forward(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Outside the handler, so that the failed batch's tensors are no longer held by the traceback.
        halved = max(1, len(batch) // 2)
        self._sizes[shape] = halved
        self._settled.add(shape)
        self.size = min(self.size, halved)
        logger.warning("out of device memory: %s goes on with batches of %d", self._name, halved)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _grow(
        self,
        batch: Sequence[Item],
        forward: Callable[[Sequence[Item]], Sequence[Result]],
        shape: Hashable,
        gauge: Gauge,
    ) -> Sequence[Result]:
        """Run a full batch, and double the size for the next one where that will fit."""
        gauge.start()
        answer = forward(batch)
        taken, free = gauge.stop()
        doubled = min(2 * len(batch), self._most)
        if doubled > len(batch) and taken / len(batch) * doubled <= free:
            self._sizes[shape] = doubled
        else:
            self._sizes[shape] = len(batch)
            self._settled.add(shape)
        return answer


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is torch's word for a full device, without importing torch."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
