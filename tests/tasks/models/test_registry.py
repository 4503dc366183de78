from collections.abc import Sequence

import numpy as np
import pytest

from vouch_labels.tasks.models.registry import Pass, assemble, each_its_own


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_passes_come_together_with_a_column_for_every_phrase() -> None:
    first = Pass(rows([0.5, 0.5, 0.2, 0.4, 0.9, 0.1], [0.5, 0.5, 0.1, 0.1, 0.2, 0.1]), (0, 2))
    second = Pass(rows([0.0, 1.0, 0.5, 0.5, 0.3]), (1,))
    found = assemble([first, second], 3, (200, 100), (200, 100), 0.3)
    np.testing.assert_allclose(found.boxes, [[80, 30, 120, 70], [0, 75, 50, 100]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [[0.9, 0, 0.1], [0, 0.3, 0]])
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_what_lies_in_the_padding_is_clipped() -> None:
    found = assemble([Pass(rows([0.5, 0.5, 1.0, 1.0, 0.9]), (0,))], 1, (200, 200), (200, 50), 0.3)
    np.testing.assert_allclose(found.boxes, [[0, 0, 200, 50]])


@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_said(place: int, value: float) -> None:
    good, bad = rows([0.5, 0.5, 0.2, 0.2, 0.9]), rows([0.5, 0.5, 0.2, 0.2, 0.1])
    bad[0, place] = value
    found = assemble([Pass(good, (0,)), Pass(bad, (1,))], 2, (10, 10), (10, 10), 0.3)
    assert found.boxes.shape == (1, 4)
    assert np.isnan(found.scores).all()


def test_a_batch_is_done_again_one_by_one_only_when_it_must() -> None:
    sizes = []

    def forward(items: Sequence[int]) -> list[list[np.ndarray]]:
        sizes.append(len(items))
        spoilt = 13 in items
        return [[np.array([[np.nan if spoilt else item]], np.float32)] for item in items]

    assert [blocks[0][0, 0] for blocks in each_its_own(forward, [1, 2, 3])] == [1, 2, 3]
    assert sizes == [3]
    found = [blocks[0][0, 0] for blocks in each_its_own(forward, [1, 13, 3])]
    assert (found[0], found[2]) == (1, 3)
    assert np.isnan(found[1])
    assert sizes == [3, 3, 1, 1, 1]
