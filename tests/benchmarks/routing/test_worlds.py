import numpy as np
import pytest

from benchmarks.routing.contract import SIGNALS, World, draw


def test_equal_seeds_give_equal_batches():
    one, two = (draw(World("x", images=100), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.signals, two.signals)
    assert np.array_equal(one.correct, two.correct)
    assert one.signals.shape == (len(one.correct), len(SIGNALS))


def correlation(batch):
    """Correlation of "correct" between two labels of one image."""
    sizes, right = np.bincount(batch.images), np.bincount(batch.images, batch.correct)
    mean = batch.correct.mean()
    pairs = ((right - mean * sizes) ** 2).sum() - ((batch.correct - mean) ** 2).sum()
    return pairs / (sizes * (sizes - 1)).sum() / (mean * (1 - mean))


@pytest.mark.parametrize(("spread", "low", "high"), [(0.0, -0.02, 0.02), (0.76, 0.05, 0.15), (1.19, 0.14, 0.3)])
def test_labels_of_an_image_err_together(spread, low, high):
    assert low < correlation(draw(World("x", images=3000, spread=spread), np.random.default_rng(0))) < high


def test_the_ideal_score_is_calibrated_and_ranks_best():
    batch = draw(World("x"), np.random.default_rng(1))
    for low in (0.1, 0.5, 0.8, 0.95):
        near = (batch.ideal >= low) & (batch.ideal < low + 0.05)
        assert batch.correct[near].mean() == pytest.approx(batch.ideal[near].mean(), abs=0.04)


def test_without_information_all_labels_are_alike():
    batch = draw(World("x", informative=False, base=3.0), np.random.default_rng(1))
    high = batch.signals[:, 0] > 0
    assert batch.correct[high].mean() == pytest.approx(batch.correct[~high].mean(), abs=0.01)


def test_absent_classes_are_all_wrong():
    batch = draw(World("x", absent_images=1.0), np.random.default_rng(1))
    assert not batch.correct.any()
