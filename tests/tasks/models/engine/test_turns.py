"""Threads share a device, or one has it alone."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from tasks.models.engine.turns import Turns, turns_of
from tests.waiting import HANG_S, until


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_together_means_at_the_same_time(threads):
    turns, met = Turns(), Barrier(2)

    def stay():
        with turns.together() as visit:
            met.wait(HANG_S)
            return visit.alone

    assert [one.result(HANG_S) for one in [threads.submit(stay) for _ in range(2)]] == [False, False]
    with turns.together() as visit:
        assert visit.alone


def test_alone_waits_for_the_others_and_keeps_later_ones_out(threads):
    turns, said = Turns(), []
    inside, leave = Event(), Event()

    def stay():
        with turns.together():
            inside.set()
            leave.wait(HANG_S)
            said.append("first leaves")

    def alone():
        with turns.alone():
            said.append("alone")

    def late():
        with turns.together():
            said.append("late")

    first = threads.submit(stay)
    inside.wait(HANG_S)
    second = threads.submit(alone)
    until(lambda: turns._waiting)
    third = threads.submit(late)
    leave.set()
    for one in (first, second, third):
        one.result(HANG_S)
    assert said == ["first leaves", "alone", "late"]


def test_stays_are_nested():
    turns = Turns()
    with turns.alone(), turns.alone(), turns.together() as visit:
        assert visit.alone
    with turns.together() as outer, turns.together() as inner:
        assert inner is outer
    with turns.alone():
        pass


def test_two_that_stay_and_both_want_to_be_alone_both_get_it(threads):
    turns, met = Turns(), Barrier(2)
    there = []

    def stay():
        with turns.together():
            met.wait(HANG_S)
            with turns.alone():
                there.append(1)
                assert len(there) == 1
                there.pop()
            with turns.together() as visit:
                return visit.alone

    assert [one.result(HANG_S) for one in [threads.submit(stay) for _ in range(2)]] == [False, False]
    with turns.alone():
        pass


def test_an_error_gives_the_device_back(threads):
    turns = Turns()
    for stay in (turns.alone, turns.together):
        with pytest.raises(ValueError, match="stop"), stay():
            raise ValueError("stop")
    with turns.together(), pytest.raises(ValueError, match="stop"), turns.alone():
        raise ValueError("stop")

    def alone():
        with turns.alone():
            return True

    assert threads.submit(alone).result(HANG_S)


def test_a_device_has_one_set_of_turns():
    assert turns_of("cuda:0") is turns_of("cuda:0")
    assert turns_of("cuda:0") is not turns_of("cuda:1")
