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
