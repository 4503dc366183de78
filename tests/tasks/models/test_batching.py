"""Batches that shrink when memory runs out.

Batches of several models on one device, in threads, with a fake memory that all of them share.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest
import torch

from tests.processes import HANG_S
from vouch_labels.tasks.models.batching import RESCUES, Batcher, is_out_of_memory
from vouch_labels.tasks.models.runtime import SharedLock


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


LONG = 0.1
"""Seconds for which a thread waits for what must not come."""


class Device:
    """Memory of a device, with the peak of all who use it."""

    def __init__(self, size):
        self.size, self.used, self.peak = size, 0, 0
        self.lock = Lock()

    def take(self, amount):
        with self.lock:
            if self.used + amount > self.size:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.used += amount
            self.peak = max(self.peak, self.used)

    def give(self, amount):
        with self.lock:
            self.used -= amount


class Meter:
    """A gauge with the counters of the whole device, as torch's allocator has them."""

    def __init__(self, device, free):
        self.device, self.free, self.readings = device, free, []

    def start(self):
        self.before = self.device.peak = self.device.used

    def stop(self):
        self.readings.append(self.device.peak - self.before)
        return self.readings[-1], self.free


@pytest.fixture
def other():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def model(device, item, started=None, until=None, full=None, patience=HANG_S):
    """A forward pass that takes `item` a piece, and holds it until something happens; sets `full` when it gets none."""

    def forward(batch):
        try:
            device.take(item * len(batch))
        except torch.OutOfMemoryError:
            if full is not None:
                full.set()
            raise
        try:
            if started is not None:
                started.set()
            if until is not None:
                until.wait(patience)
            return list(batch)
        finally:
            device.give(item * len(batch))

    return forward


@pytest.fixture
def beside(other):
    """Lets another model hold some of a device's memory until something happens."""

    def hold(device, lock, amount, until):
        started = Event()
        running = other.submit(Batcher("neighbour", 1, lock=lock).run, [0], model(device, amount, started, until))
        assert started.wait(HANG_S)
        return running

    return hold


def test_what_a_growing_batch_takes_is_its_own(other):
    device, lock = Device(10_000), SharedLock()
    meter = Meter(device, 1_000)
    growing, started = Event(), Event()

    def neighbour():
        growing.wait(HANG_S)
        return Batcher("neighbour", 1, lock=lock).run([0], model(device, 700, started))

    running = other.submit(neighbour)
    batcher = Batcher("x", "auto", start=2, most=4, gauge=meter, lock=lock)
    assert batcher.run(range(6), model(device, 10, growing, started, patience=LONG)) == list(range(6))
    running.result(HANG_S)
    assert meter.readings == [20, 40]
    assert batcher.size_of(()) == 4


def test_known_sizes_run_side_by_side(beside):
    device, lock, second = Device(10_000), SharedLock(), Event()
    running = beside(device, lock, 1, second)
    Batcher("x", 4, lock=lock).run(range(4), model(device, 1, second))
    running.result(HANG_S)
    assert device.peak == 5


def test_memory_that_another_model_had_does_not_make_batches_smaller(beside, caplog):
    device, lock, full = Device(100), SharedLock(), Event()
    running = beside(device, lock, 60, full)
    batcher = Batcher("x", 8, lock=lock)
    with caplog.at_level(logging.WARNING):
        assert batcher.run(range(8), model(device, 10, full=full)) == list(range(8))
    running.result(HANG_S)
    assert full.is_set()
    assert batcher.size == batcher.size_of(()) == 8
    assert not caplog.text


def test_a_single_item_is_tried_alone_before_it_is_given_up(beside):
    device, lock, full = Device(100), SharedLock(), Event()
    running = beside(device, lock, 60, full)
    batcher = Batcher("x", 8, lock=lock)
    assert batcher.run([5], model(device, 90, full=full)) == [5]
    running.result(HANG_S)
    assert full.is_set()
    with pytest.raises(torch.OutOfMemoryError):
        batcher.run([5], model(device, 101))


def test_what_never_fits_beside_the_others_is_made_smaller_in_the_end(beside, caplog):
    device, lock = Device(100), SharedLock()
    batcher = Batcher("x", 8, lock=lock)
    with caplog.at_level(logging.WARNING):
        for _ in range(RESCUES):
            assert batcher.size_of(()) == 8
            full = Event()
            running = beside(device, lock, 60, full)
            assert batcher.run(range(8), model(device, 10, full=full)) == list(range(8))
            running.result(HANG_S)
    assert batcher.size_of(()) == 4
    assert batcher.size_of("another shape") == 8
    assert "x goes on with batches of 4" in caplog.text


def test_what_does_not_fit_alone_either_is_halved_at_once(beside):
    device, lock, full = Device(100), SharedLock(), Event()
    running = beside(device, lock, 10, full)
    batcher = Batcher("x", 8, lock=lock)
    assert batcher.run(range(8), model(device, 20, full=full)) == list(range(8))
    running.result(HANG_S)
    assert batcher.size_of(()) == batcher.size == 4


def test_a_batch_within_a_batch_is_tried_alone_too(beside):
    device, lock, full = Device(100), SharedLock(), Event()
    running = beside(device, lock, 60, full)
    outer, inner = Batcher("outer", 2, lock=lock), Batcher("inner", 4, lock=lock)

    def forward(batch):
        device.take(10)
        try:
            inner.run(range(4), model(device, 20, full=full))
            return list(batch)
        finally:
            device.give(10)

    assert outer.run([1, 2], forward) == [1, 2]
    running.result(HANG_S)
    assert (outer.size_of(()), inner.size_of(())) == (2, 4)
