"""A measurement in which something was compiled does not count."""

import pytest
import torch

from tasks.measure.settled import MOST, compiled_graphs, settled


def test_work_is_done_again_until_nothing_is_compiled():
    graphs = iter([0, 2, 2, 3, 3, 3])
    done = []
    assert settled(lambda: done.append(1) or len(done), lambda: next(graphs)) == 3
    assert len(done) == 3


def test_what_never_settles_ends():
    done = []
    settled(lambda: done.append(1), lambda: len(done))
    assert len(done) == MOST


@pytest.mark.slow
def test_each_new_shape_is_one_more_graph():
    add = torch.compile(lambda value: value + 1, backend="eager", dynamic=False)
    before = compiled_graphs()
    calls = []

    def work():
        calls.append(1)
        return add(torch.ones(min(len(calls), 2)))

    assert settled(work).shape == (2,)
    assert len(calls) == 3
    assert compiled_graphs() == before + 2
