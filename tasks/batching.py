"""Runs a model over items in batches that fit the device's memory."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Batcher:
    """Splits work into batches and halves them, for good, when the device runs out of memory.

    One batcher belongs to one model, so what one shard learned the next one starts with.
    """

    def __init__(self, name: str, size: int) -> None:
        """Start with batches of `size` items; `name` is the config key that sets it, for the warning."""
        self._name = name
        self.size = size

    def run(self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
        """Apply `forward` to consecutive batches and join the results, in order.

        Args:
            items: Any number of items, none included.
            forward: Returns one result an item.

        Returns:
            One result an item.

        Raises:
            torch.OutOfMemoryError: Even one item does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            answer = self._try(batch, forward)
            if answer is not None:
                results.extend(answer)
        return results

    def _try(
        self, batch: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]]
    ) -> Sequence[Result] | None:
        import torch

        try:
            return forward(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Outside the handler, so that the failed batch's tensors are no longer held by the traceback.
        self.size = max(1, len(batch) // 2)
        logger.warning("out of device memory: %s goes on with batches of %d", self._name, self.size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is torch's word for a full device, without importing torch."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
