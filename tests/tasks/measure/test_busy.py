"""What several streams do at the same time counts once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from tasks.measure.busy import covered, kernels


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 1), (3, 5)], 3),
        ([(3, 5), (0, 1)], 3),
        ([(0, 4), (1, 2), (3, 6)], 6),
        ([(0, 10)] * 3, 10),
        ([(0, 5), (5, 7)], 7),
    ],
)
def test_overlapping_intervals_count_once(intervals, length):
    assert covered(intervals) == length


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))))
def test_the_union_is_that_of_the_moments(intervals):
    moments = {moment for begin, end in intervals for moment in range(begin, end)}
    assert covered(intervals) == len(moments)


def test_three_streams_on_a_half_idle_device_are_half_busy():
    streams = [[(second, second + 500) for second in range(0, 10_000, 1000)]] * 3
    assert covered(interval for stream in streams for interval in stream) / 10_000 == 0.5


def test_kernels_alone_count():
    def event(name, device, begin, end, **more):
        return FunctionEvent(0, name, 0, begin, end, device_type=device, **more)

    events = [
        event("aten::mm", DeviceType.CPU, 0, 10),
        event("gemm", DeviceType.CUDA, 2, 5),
        event("Memcpy HtoD (Pageable -> Device)", DeviceType.CUDA, 5, 9),
        event("Memset (Device)", DeviceType.CUDA, 5, 9),
        event("a range", DeviceType.CUDA, 0, 10, is_user_annotation=True),
    ]
    assert kernels(events) == [(2, 5)]
