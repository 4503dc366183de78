"""Runs a model over items in batches that fit the device's memory."""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

from vouch_labels.schemas.campaign import BatchSize
from vouch_labels.tasks.models.runtime import Gauge, SharedLock, Visit, device_lock, gauge_of

Item = TypeVar("Item")
Result = TypeVar("Result")

RESCUES: Final = 3
"""Times that a batch which fits alone may run out of memory beside other models before it is made smaller after all."""

logger = logging.getLogger(__name__)


class Batcher:
    """Splits work into batches, grows them while memory allows, and halves them when it runs out.

    Sizes are kept by the shape of the items, since larger ones take more memory. One batcher belongs to one model, so
    what one shard learned the next one starts with. Batches of several models run side by side, but for those by which
    a size is found: they run alone, so that what they take is theirs.
    """

    def __init__(
        self,
        name: str,
        size: BatchSize,
        start: int = 8,
        most: int = 64,
        device: str = "cpu",
        gauge: Gauge | None = None,
        lock: SharedLock | None = None,
    ) -> None:
        """Settle where to begin: at `size` items a batch; auto at `start`, where it stays if memory cannot be read.

        `name` is the config key that sets the size, for the warning. By default the gauge reads the memory of the
        device, where it has one, and the lock is the one that all batchers of the device share.
        """
        self._name = name
        self._gauge = (gauge or gauge_of(device)) if size == "auto" else None
        self._lock = lock or device_lock(device)
        self._most = most
        self._sizes: dict[Hashable, int] = {}
        self._settled: set[Hashable] = set()
        self._rescues: Counter[Hashable] = Counter()
        self.size = start if size == "auto" else size
        """Items in the first batch of a shape that was not seen yet."""

    def size_of(self, shape: Hashable) -> int:
        """Items in the next batch of a shape."""
        return self._sizes.get(shape, self.size)

    def run(
        self, items: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]], shape: Hashable = ()
    ) -> list[Result]:
        """Apply `forward` to consecutive batches and join the results, one an item, in order.

        `forward` returns results on the host, or at least computed. `shape` is what the memory that an item takes
        depends on, equal for all of these.

        Raises:
            torch.OutOfMemoryError: Even one item does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size_of(shape)]
            # A batch that is not full says too little of what a greater one would take.
            growing = shape not in self._settled and len(batch) == self.size_of(shape)
            if growing and self._gauge is not None:
                answer = self._grow(batch, forward, shape, self._gauge)
            else:
                answer = self._beside_others(batch, forward, shape)
            if answer is None:
                self._halve(shape, len(batch))
                self.size = min(self.size, self._sizes[shape])
            else:
                results.extend(answer)
        return results

    def _beside_others(
        self, batch: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]], shape: Hashable
    ) -> Sequence[Result] | None:
        """Run a batch while other models compute; where memory runs out by that, once more alone."""
        with self._lock.shared() as visit:
            answer = _tried(batch, forward, visit)
        if answer is not None or visit.alone:
            return answer
        with self._lock.exclusive():
            _empty_cache()
            answer = _tried(batch, forward)
        self._rescues[shape] += 1
        if answer is not None and self._rescues[shape] >= RESCUES and len(batch) > 1:
            self._rescues[shape] = 0
            self._halve(shape, len(batch))
        return answer

    def _grow(
        self,
        batch: Sequence[Item],
        forward: Callable[[Sequence[Item]], Sequence[Result]],
        shape: Hashable,
        gauge: Gauge,
    ) -> Sequence[Result] | None:
        """Run a full batch alone, and double the size for the next one where that will fit."""
        with self._lock.exclusive():
            gauge.start()
            answer = _tried(batch, forward)
            if answer is None:
                return None
            taken, free = gauge.stop()
        doubled = min(2 * len(batch), self._most)
        if doubled > len(batch) and taken / len(batch) * doubled <= free:
            self._sizes[shape] = doubled
        else:
            self._sizes[shape] = len(batch)
            self._settled.add(shape)
        return answer

    def _halve(self, shape: Hashable, size: int) -> None:
        self._sizes[shape] = max(1, size // 2)
        self._settled.add(shape)
        logger.warning("out of device memory: %s goes on with batches of %d", self._name, self._sizes[shape])
        _empty_cache()


def _tried(
    batch: Sequence[Item], forward: Callable[[Sequence[Item]], Sequence[Result]], visit: Visit | None = None
) -> Sequence[Result] | None:
    """The answer; None when memory runs out, unless a single item has been alone with it (`visit`: if it has been)."""
    import torch

    try:
        return forward(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1 and (visit is None or visit.alone):
            raise
    # Outside the handler, so that the failed batch's tensors are no longer held by the traceback.
    return None


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error is torch's error of a full device, without importing torch."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
