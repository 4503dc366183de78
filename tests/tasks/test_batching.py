"""Batches that shrink when memory runs out."""

import logging

import pytest
import torch

from tasks.batching import Batcher, is_out_of_memory


def test_results_come_in_order_and_batches_are_full():
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        return [2 * item for item in batch]

    assert Batcher("x", 4).run(range(10), forward) == [2 * item for item in range(10)]
    assert sizes == [4, 4, 2]


def test_out_of_memory_halves_for_good_and_says_so(caplog):
    batcher = Batcher("models.detector.batch_size", 8)
    sizes = []

    def forward(batch):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(batch))
        return list(batch)

    with caplog.at_level(logging.WARNING):
        assert batcher.run(range(9), forward) == list(range(9))
    assert sizes == [2, 2, 2, 2, 1]
    assert batcher.size == 2
    assert "models.detector.batch_size goes on with batches of 2" in caplog.text


def test_one_item_that_does_not_fit_is_an_error():
    def forward(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError) as caught:
        Batcher("x", 4).run([1, 2, 3], forward)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("CUDA error"))


def test_no_items_no_call():
    assert Batcher("x", 4).run([], lambda batch: pytest.fail("called")) == []


class FakeMemory:
    """A device of which every item takes a fixed share."""

    def __init__(self, free: int, item: int) -> None:
        self.free, self.item, self.batch, self.readings = free, item, 0, 0

    def start(self) -> None:
        self.readings += 1

    def stop(self) -> tuple[int, int]:
        return self.batch * self.item, self.free

    def forward(self, batch):
        self.batch = len(batch)
        if self.batch * self.item > self.free:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(batch)


def recorded(memory):
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        return memory.forward(batch)

    return sizes, forward


def test_auto_grows_while_memory_allows_and_reads_it_no_more_than_it_must():
    memory = FakeMemory(free=1000, item=60)
    batcher = Batcher("x", "auto", start=4, most=64, gauge=memory)
    sizes, forward = recorded(memory)
    assert batcher.run(range(60), forward) == list(range(60))
    assert sizes == [4, 8, 16, 16, 16]
    assert memory.readings == 3
    batcher.run(range(20), forward)
    assert sizes[5:] == [16, 4]
    assert memory.readings == 3


def test_auto_stops_at_the_most():
    memory = FakeMemory(free=10**9, item=1)
    batcher = Batcher("x", "auto", start=4, most=12, gauge=memory)
    sizes, forward = recorded(memory)
    batcher.run(range(40), forward)
    assert sizes == [4, 8, 12, 12, 4]


def test_sizes_are_remembered_by_shape():
    memory = FakeMemory(free=1000, item=100)
    batcher = Batcher("x", "auto", start=4, gauge=memory)
    sizes, forward = recorded(memory)
    batcher.run(range(20), forward, (1, 1))
    memory.item = 400
    batcher.run(range(5), forward, (2, 2))
    memory.item = 100
    batcher.run(range(8), forward, (1, 1))
    assert sizes == [4, 8, 8, 4, 2, 2, 1, 8]
    assert batcher.size_of((3, 3)) == 2


def test_what_ran_out_of_memory_does_not_grow_again():
    memory = FakeMemory(free=1000, item=400)
    batcher = Batcher("x", "auto", start=8, gauge=memory)
    sizes, forward = recorded(memory)
    batcher.run(range(6), forward)
    memory.item = 1
    batcher.run(range(6), forward)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1, *[1] * 6]


def test_a_number_is_kept_whatever_the_memory():
    memory = FakeMemory(free=10**9, item=1)
    sizes, forward = recorded(memory)
    Batcher("x", 3, gauge=memory).run(range(7), forward)
    assert sizes == [3, 3, 1]
    assert memory.readings == 0


def test_auto_on_a_cpu_is_where_it_starts():
    batcher = Batcher("x", "auto", start=5)
    sizes = []
    batcher.run(range(12), lambda batch: sizes.append(len(batch)) or list(batch))
    assert sizes == [5, 5, 2]
