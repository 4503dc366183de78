import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.store.threads import AHEAD, map_ordered
from tests.waiting import HANG_S


@given(st.lists(st.integers(), max_size=60), st.integers(1, 4))
def test_results_come_in_order(items: list[int], threads: int) -> None:
    assert list(map_ordered(lambda item: item * 2, items, threads)) == [item * 2 for item in items]


def test_only_a_few_items_are_drawn_ahead() -> None:
    drawn: list[int] = []
    results = map_ordered(lambda item: item, (drawn.append(i) or i for i in range(1000)), 2)
    for expected in range(100):
        assert next(results) == expected
        assert len(drawn) <= expected + 1 + AHEAD * 2
    results.close()
    assert len(drawn) < 120


def test_calls_run_at_once() -> None:
    meet = threading.Barrier(3)
    # Each call waits for two others: one at a time would never end.
    assert len(list(map_ordered(lambda _: meet.wait(HANG_S), range(9), 3))) == 9


def test_an_error_comes_in_its_turn_and_ends_the_rest() -> None:
    seen: list[int] = []

    def fail_at_five(item: int) -> int:
        seen.append(item)
        if item == 5:
            raise ValueError(item)
        return item

    results = map_ordered(fail_at_five, range(1000), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(results)
    assert len(seen) < 30
