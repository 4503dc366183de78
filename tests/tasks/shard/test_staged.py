"""Stages that work side by side."""

import threading
import time

import pytest

from tasks.shard.staged import staged
from tests.waiting import HANG_S


def boxes(count):
    return ([number] for number in range(count))


def append(value):
    return lambda item: item.append(value)


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_every_item_goes_through_every_stage_in_order(stages):
    found = list(staged(boxes(10), [append(f"s{index}") for index in range(stages)], "t"))
    assert found == [[number, *(f"s{index}" for index in range(stages))] for number in range(10)]


def test_stages_work_at_the_same_time():
    meeting = threading.Barrier(2)

    # Each waits for the other, which works on the item before or behind; the first and last item meet nobody.
    def first(item):
        if item[0] > 0:
            meeting.wait(HANG_S)

    def second(item):
        if item[0] < 3:
            meeting.wait(HANG_S)

    assert len(list(staged(boxes(4), [first, second], "t"))) == 4


def test_no_more_is_taken_than_there_is_room_for():
    taken = []

    def source():
        for number in range(20):
            taken.append(number)
            yield [number]

    items = staged(source(), [append(0), append(1)], "t")
    next(items)
    assert len(taken) == 3
    items.close()
    assert len(taken) == 3


def test_an_error_comes_when_its_items_turn_does_and_ends_the_threads():
    def fragile(item):
        if item[0] == 2:
            raise ValueError("no")

    items = staged(boxes(9), [fragile, append("done")], "error")
    assert [next(items)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no"):
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("error")]


def test_an_error_of_the_source_ends_the_threads():
    def source():
        yield [0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(staged(source(), [append(1)], "source"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("source")]


def test_who_stops_early_waits_only_for_what_has_begun():
    begun = []

    def slow(item):
        begun.append(item[0])
        time.sleep(0.05)

    items = staged(boxes(50), [slow, append(1)], "early")
    next(items)
    items.close()
    assert len(begun) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("early")]
