"""The probabilities of classes among texts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.score.softmax import class_softmax, softmax


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 4), st.sampled_from([1.0, 100.0, 2000.0]))
def test_every_class_gets_what_it_gets_alone(seed: int, count: int, more: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    similarities = rng.uniform(-1, 1, (5, count + more)).astype(np.float32)
    competes = np.ones((count, count + more), np.bool_)
    competes[:, count:] = rng.random((count, more)) < 0.5
    found = class_softmax(similarities, competes, factor)
    for index in range(count):
        own, _, _ = softmax(similarities, np.tile(competes[index], (5, 1)), np.full(5, index), factor)
        assert found[:, index] == pytest.approx(own, abs=1e-12)


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    similarities = np.array([[0.5, np.nan], [0.5, 0.5]], np.float32)
    found = class_softmax(similarities, np.ones((2, 2), np.bool_), 10.0)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [0.5, 0.5]


def test_no_crop_has_no_probabilities() -> None:
    assert class_softmax(np.zeros((0, 3), np.float32), np.ones((2, 3), np.bool_), 10.0).shape == (0, 2)
