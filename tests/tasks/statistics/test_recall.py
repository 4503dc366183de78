import numpy as np
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.recall import ExhaustiveImages, image_sample, recall


def world(seed, images=3000):
    """Images in three strata; misses come in whole images, most of them where there are no boxes."""
    rng = np.random.default_rng([51, seed])
    strata = rng.choice(3, images, p=[0.3, 0.6, 0.1])
    objects = np.where(strata == 0, rng.poisson(0.2, images), 1 + rng.poisson(3, images))
    bad = rng.random(images) < np.array([1.0, 0.1, 0.7])[strata]
    found = rng.binomial(objects, np.where(bad, 0.3, 0.97))
    return strata, found, objects


def searched(seed, count):
    strata, found, objects = world(seed)
    rows = image_sample(strata, count, seed).rows
    sample = ExhaustiveImages(strata[rows], found[rows], objects[rows])
    return recall(sample, np.bincount(strata), 0.1, seed, bootstraps=300), found.sum() / objects.sum()


@pytest.mark.parametrize("count", [90, 300])
def test_the_interval_covers(count):
    covered = [e.low <= truth <= e.high for e, truth in (searched(seed, count) for seed in range(200))]
    assert np.mean(covered) >= 0.9 - 2 * np.sqrt(0.09 / 200)


def test_weights_undo_the_strata():
    values = [(e.value, truth) for e, truth in (searched(seed, 300) for seed in range(100))]
    assert np.mean([value - truth for value, truth in values]) == pytest.approx(0, abs=0.01)
    strata, found, objects = world(0)
    rows = image_sample(strata, 300, 0).rows
    assert found[rows].sum() / objects[rows].sum() < found.sum() / objects.sum() - 0.05


def test_everything_searched_leaves_nothing_open():
    strata, found, objects = world(1)
    estimate = recall(ExhaustiveImages(strata, found, objects), np.bincount(strata), 0.1, 1, bootstraps=50)
    assert estimate.low == pytest.approx(estimate.high)
    assert estimate.value == pytest.approx(found.sum() / objects.sum())


def test_no_miss_and_no_find_still_have_an_interval():
    ones = np.ones(20, np.int64)
    perfect = recall(ExhaustiveImages(0 * ones, ones, ones), np.array([500]), 0.1, 0)
    assert perfect.value == 1
    assert perfect.low == pytest.approx(0.05 ** (1 / 20))
    blind = recall(ExhaustiveImages(0 * ones, 0 * ones, ones), np.array([500]), 0.1, 0)
    assert (blind.value, blind.low) == (0, 0)
    assert blind.high == pytest.approx(1 - 0.05 ** (1 / 20))


def test_no_object_says_nothing():
    ones = np.ones(3, np.int64)
    found = recall(ExhaustiveImages(0 * ones, 0 * ones, 0 * ones), np.array([10]), 0.1, 0)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


def test_a_stratum_that_nobody_searched_is_refused():
    ones = np.ones(5, np.int64)
    with pytest.raises(UserError, match="every stratum"):
        recall(ExhaustiveImages(0 * ones, ones, ones), np.array([10, 10]), 0.1, 0)


def test_images_are_drawn_as_declared():
    strata = np.array([0] * 10 + [1] * 200)
    drawn = image_sample(strata, 40, 3)
    assert np.bincount(strata[drawn.rows]).tolist() == [10, 30]
    assert set(drawn.inclusion[strata[drawn.rows] == 0]) == {1.0}
    assert drawn.inclusion[strata[drawn.rows] == 1] == pytest.approx(np.full(30, 0.15))


def test_a_small_stratum_that_was_searched_whole_widens_nothing():
    rng = np.random.default_rng(0)
    objects = rng.poisson(4, 42)
    found = rng.binomial(objects, 0.8)
    strata = np.repeat([0, 1], [40, 2])
    alone = recall(ExhaustiveImages(strata[:40], found[:40], objects[:40]), np.array([400]), 0.1, 0)
    both = recall(ExhaustiveImages(strata, found, objects), np.array([400, 2]), 0.1, 0)
    assert both.high - both.low < 1.2 * (alone.high - alone.low)
