"""Worlds, and the guarantee in them on fixed seeds and few draws; the benchmark has the full ones."""

import numpy as np
import pytest

from benchmarks.routing.contract import DELTA, SIGNALS, World, draw, play

DRAWS = 60
LIMIT = DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / DRAWS)


@pytest.fixture(scope="module")
def plain():
    return [play(World("plain", kinds=(1.0, 0.0, 0.0, 0.0)), number) for number in range(DRAWS)]


def mean(played, rule, precision):
    """Share accepted and share broken."""
    return np.mean([one[rule, precision] for one in played], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["A", "B"])
def test_the_guarantee_is_kept_and_the_naive_rule_breaks_it(plain, gate):
    precisions = (0.95, 0.98, 0.99)
    assert max(mean(plain, gate, precision)[1] for precision in precisions) <= LIMIT
    assert max(mean(plain, f"{gate} naive", precision)[1] for precision in precisions) > LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "floor"), [("A", 0.80), ("B", 0.85)])
def test_automation_is_near_the_ideal_one_and_above_that_of_the_score(plain, gate, floor):
    accepted = mean(plain, gate, 0.95)[0]
    assert accepted >= floor * mean(plain, f"{gate} ideal", 0.95)[0]
    assert accepted >= 1.25 * mean(plain, f"{gate} score", 0.95)[0]


def test_one_campaign_has_every_rule_and_repeats():
    world = World("small", images=600)
    found = play(world, 1, reviews=300)
    assert {rule for rule, _ in found} == {
        f"{gate}{rule}" for gate in "AB" for rule in ("", " naive", " oracle", " ideal")
    } | {"A score", "B score"}
    assert found == play(world, 1, reviews=300)
    assert found["A oracle", 0.95].automated <= found["B oracle", 0.95].automated


def test_tired_reviewers_break_the_guarantee_where_they_are_trusted():
    world = World("tired", tired=True, only=0.95)
    played = [play(world, number) for number in range(12)]
    assert mean(played, "B trusting", 0.95)[1] > 0.5
    assert mean(played, "B", 0.95)[1] <= DELTA + 2 * np.sqrt(0.09 / 12)


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
    batch = draw(World("x", images=8_000), np.random.default_rng(1))
    for low in (0.1, 0.5, 0.8, 0.95):
        near = (batch.ideal >= low) & (batch.ideal < low + 0.05)
        assert batch.correct[near].mean() == pytest.approx(batch.ideal[near].mean(), abs=0.04)


def test_without_information_all_labels_are_alike():
    batch = draw(World("x", images=8_000, informative=False, base=3.0), np.random.default_rng(1))
    high = batch.signals[:, 0] > 0
    assert batch.correct[high].mean() == pytest.approx(batch.correct[~high].mean(), abs=0.01)


def test_absent_classes_are_all_wrong():
    batch = draw(World("x", absent_images=1.0), np.random.default_rng(1))
    assert not batch.correct.any()
