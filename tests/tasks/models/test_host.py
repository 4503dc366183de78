"""What the host does for a device."""

import os
import threading

import numpy as np
import pytest

from tasks.models.host import in_threads, to_device
from tests.waiting import HANG_S


@pytest.mark.parametrize("cores", [1, 3, None])
def test_results_are_in_order_whatever_the_number_of_cores(monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert in_threads(lambda number: number**2, range(50)) == [number**2 for number in range(50)]
    assert in_threads(lambda number: number, []) == []


def test_items_are_worked_on_side_by_side(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    both = threading.Barrier(2)
    in_threads(lambda _: both.wait(HANG_S), range(2))


def test_an_error_is_the_caller_s():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // number, [1, 0, 2])


def test_an_array_keeps_its_values_and_type():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert to_device(array, "cpu").tolist() == array.tolist()
