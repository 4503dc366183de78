"""Time is counted once, for the innermost step that it was spent in."""

import pytest

from tasks.measure import stage_timer
from tasks.measure.stage_timer import StageTimer


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `spend` moves."""

    class Clock:
        now = 100.0

        def spend(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(stage_timer.time, "perf_counter", lambda: clock.now)
    return clock


def test_a_step_inside_another_counts_for_itself_alone(clock):
    timer = StageTimer()
    inner = timer.wrap("inner", clock.spend)

    def work():
        clock.spend(1)
        inner(10)
        clock.spend(2)
        inner(20)

    clock.spend(1000)
    timer.wrap("outer", work)()
    clock.spend(1000)
    assert timer.seconds == {"outer": 3, "inner": 30}


def test_a_step_that_raises_still_counts(clock):
    timer = StageTimer()

    def fail():
        clock.spend(5)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        timer.wrap("step", fail)()
    timer.wrap("other", clock.spend)(7)
    assert timer.seconds == {"step": 5, "other": 7}


def test_of_a_generator_only_the_waiting_counts(clock):
    timer = StageTimer()

    def items():
        for number in range(3):
            clock.spend(4)
            yield number

    for _ in timer.wrap_generator("items", items)():
        clock.spend(100)
    assert timer.seconds == {"items": 12}


def test_threads_are_summed_apart(clock):
    timer = StageTimer()
    for _ in range(3):
        timer.wrap_in_threads("decoding", clock.spend)(2)
    assert timer.in_threads == {"decoding": 6}
    assert not timer.seconds


def test_forward_passes_count_once_however_deep_they_lie(clock):
    timer = StageTimer()
    waits = []

    def wait():
        waits.append(clock.now)

    inner = timer.wrap_forward(clock.spend, wait)

    def model(fails):
        inner(3)
        inner(4)
        if fails:
            raise ValueError("no")

    outer = timer.wrap_forward(model, wait)

    def step(fails=False):
        clock.spend(1)
        outer(fails)

    outer(False)
    timer.wrap("detect", step)()
    with pytest.raises(ValueError, match="no"):
        timer.wrap("detect", step)(True)
    assert timer.forward == {"detect": 14}
    assert timer.seconds == {"detect": 16}
    assert waits == [108, 115, 116, 123]
