"""Batches of several models on one device, in threads, with a fake memory that all of them share."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest
import torch

from tasks.batching import RESCUES, Batcher
from tasks.models.engine.turns import Turns
from tests.waiting import HANG_S

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


def model(device, item, begun=None, until=None, full=None, patience=HANG_S):
    """A forward pass that takes `item` a piece, and holds it until something happens; sets `full` when it gets none."""

    def forward(batch):
        try:
            device.take(item * len(batch))
        except torch.OutOfMemoryError:
            if full is not None:
                full.set()
            raise
        try:
            if begun is not None:
                begun.set()
            if until is not None:
                until.wait(patience)
            return list(batch)
        finally:
            device.give(item * len(batch))

    return forward


@pytest.fixture
def beside(other):
    """Lets another model hold some of a device's memory until something happens."""

    def hold(device, turns, amount, until):
        begun = Event()
        running = other.submit(Batcher("neighbour", 1, turns=turns).run, [0], model(device, amount, begun, until))
        assert begun.wait(HANG_S)
        return running

    return hold


def test_what_a_growing_batch_takes_is_its_own(other):
    device, turns = Device(10_000), Turns()
    meter = Meter(device, 1_000)
    growing, begun = Event(), Event()

    def neighbour():
        growing.wait(HANG_S)
        return Batcher("neighbour", 1, turns=turns).run([0], model(device, 700, begun))

    running = other.submit(neighbour)
    batcher = Batcher("x", "auto", start=2, most=4, gauge=meter, turns=turns)
    assert batcher.run(range(6), model(device, 10, growing, begun, patience=LONG)) == list(range(6))
    running.result(HANG_S)
    assert meter.readings == [20, 40]
    assert batcher.size_of(()) == 4


def test_known_sizes_run_side_by_side(beside):
    device, turns, second = Device(10_000), Turns(), Event()
    running = beside(device, turns, 1, second)
    Batcher("x", 4, turns=turns).run(range(4), model(device, 1, second))
    running.result(HANG_S)
    assert device.peak == 5


def test_memory_that_another_model_had_does_not_make_batches_smaller(beside, caplog):
    device, turns, full = Device(100), Turns(), Event()
    running = beside(device, turns, 60, full)
    batcher = Batcher("x", 8, turns=turns)
    with caplog.at_level(logging.WARNING):
        assert batcher.run(range(8), model(device, 10, full=full)) == list(range(8))
    running.result(HANG_S)
    assert full.is_set()
    assert batcher.size == batcher.size_of(()) == 8
    assert not caplog.text


def test_a_single_item_is_tried_alone_before_it_is_given_up(beside):
    device, turns, full = Device(100), Turns(), Event()
    running = beside(device, turns, 60, full)
    batcher = Batcher("x", 8, turns=turns)
    assert batcher.run([5], model(device, 90, full=full)) == [5]
    running.result(HANG_S)
    assert full.is_set()
    with pytest.raises(torch.OutOfMemoryError):
        batcher.run([5], model(device, 101))


def test_what_never_fits_beside_the_others_is_made_smaller_in_the_end(beside, caplog):
    device, turns = Device(100), Turns()
    batcher = Batcher("x", 8, turns=turns)
    with caplog.at_level(logging.WARNING):
        for _ in range(RESCUES):
            assert batcher.size_of(()) == 8
            full = Event()
            running = beside(device, turns, 60, full)
            assert batcher.run(range(8), model(device, 10, full=full)) == list(range(8))
            running.result(HANG_S)
    assert batcher.size_of(()) == 4
    assert batcher.size_of("another shape") == 8
    assert "x goes on with batches of 4" in caplog.text


def test_what_does_not_fit_alone_either_is_halved_at_once(beside):
    device, turns, full = Device(100), Turns(), Event()
    running = beside(device, turns, 10, full)
    batcher = Batcher("x", 8, turns=turns)
    assert batcher.run(range(8), model(device, 20, full=full)) == list(range(8))
    running.result(HANG_S)
    assert batcher.size_of(()) == batcher.size == 4


def test_a_batch_within_a_batch_is_tried_alone_too(beside):
    device, turns, full = Device(100), Turns(), Event()
    running = beside(device, turns, 60, full)
    outer, inner = Batcher("outer", 2, turns=turns), Batcher("inner", 4, turns=turns)

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
