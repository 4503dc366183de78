from itertools import combinations, product

import numpy as np
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.recall import ExhaustiveImages, image_sample, most_missed, recall

DELTA = 0.1


def world(seed, images=3000):
    """Images in three strata; misses come in whole images, most of them where there are no boxes."""
    rng = np.random.default_rng([51, seed])
    strata = rng.choice(3, images, p=[0.3, 0.6, 0.1])
    objects = np.where(strata == 0, rng.poisson(0.2, images), 1 + rng.poisson(3, images))
    bad = rng.random(images) < np.array([1.0, 0.1, 0.7])[strata]
    found = rng.binomial(objects, np.where(bad, 0.3, 0.97))
    return strata, found, objects


def sparse(share, rate, more):
    """Few images have an object, and few of those miss one, so that most samples see no miss."""

    def drawn(seed, images=3000):
        rng = np.random.default_rng([52, seed])
        objects = np.where(rng.random(images) < share, 1 + rng.poisson(more, images), 0)
        found = rng.binomial(objects, rate)
        return (found > 0).astype(np.int64), found, objects

    return drawn


def crowds(seed, images=3000):
    """Three in a hundred images have 60 objects, found or missed as a whole."""
    rng = np.random.default_rng([53, seed])
    crowd = rng.random(images) < 0.03
    objects = np.where(crowd, 60, rng.poisson(1, images))
    found = np.where(crowd, 60 * (rng.random(images) < 0.7), rng.binomial(objects, 0.9))
    return (found > 0).astype(np.int64), found, objects


def most_in(strata, values):
    return np.array([values[strata == stratum].max(initial=0) for stratum in range(strata.max() + 1)])


def searched(of, seed, count):
    strata, found, objects = of(seed)
    rows = image_sample(strata, count, seed).rows
    sample = ExhaustiveImages(strata[rows], found[rows], objects[rows])
    estimate = recall(sample, np.bincount(strata), most_in(strata, found), most_missed(found), DELTA)
    return estimate, found.sum() / objects.sum(), np.mean(objects > found)


@pytest.mark.parametrize(
    ("of", "count"),
    [
        (world, 90),
        (world, 300),
        (sparse(0.1, 0.9, 1), 200),
        (sparse(0.05, 0.9, 1), 200),
        (sparse(0.02, 0.9, 1), 200),
        (sparse(0.05, 0.7, 1), 200),
        (sparse(0.01, 0.7, 0), 200),
        (crowds, 200),
    ],
)
def test_the_interval_covers(of, count):
    found = [searched(of, seed, count) for seed in range(100)]
    # Two standard errors of 100 draws below 0.9.
    assert np.mean([one.low <= truth <= one.high for one, truth, _ in found]) >= 0.84
    assert np.mean([one.images_with_misses >= share for one, _, share in found]) >= 0.84


def test_ends_are_near_enough_to_be_useful():
    found = [searched(world, seed, 300) for seed in range(20)]
    assert np.median([truth - one.low for one, truth, _ in found]) < 0.15
    assert np.median([one.high - truth for one, truth, _ in found]) < 0.1
    # One miss at most in an image, and none seen in 100 of 2,970 without a box.
    share = [one.images_with_misses for one, *_ in (searched(sparse(0.01, 0.9, 0), seed, 200) for seed in range(20))]
    assert np.median(share) < 0.05


TINY = [
    # Per stratum: found and missed of every image.
    ([[1, 1, 1, 1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 1, 1]], (4,)),
    ([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 0, 0, 0, 2]], (6,)),
    ([[0, 0, 0, 0, 0, 0], [2, 1, 2, 1]], [[0, 0, 0, 0, 0, 2], [0, 0, 1, 0]], (3, 2)),
    ([[0, 0, 0, 0, 0, 0], [2, 1, 2]], [[0, 0, 0, 1, 1, 1], [0, 0, 1]], (3, 3)),
    ([[0] * 12, [2, 1, 2, 2]], [[0] * 9 + [2, 2, 2], [0, 0, 0, 1]], (2, 3)),
    ([[0, 0, 1, 0, 0, 3], [2, 1, 2, 0]], [[1, 2, 2, 2, 2, 2], [1, 2, 1, 2]], (3, 2)),
]


@pytest.mark.parametrize("delta", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("found", "missed", "counts"), TINY)
def test_over_all_samples_of_a_small_population_the_bounds_fail_no_more_often_than_said(found, missed, counts, delta):
    found, missed = [np.array(one) for one in found], [np.array(one) for one in missed]
    sizes = np.array([len(one) for one in found])
    strata = np.repeat(np.arange(len(counts)), counts)
    hits, misses = np.concatenate(found), np.concatenate(missed)
    truth, with_misses = hits.sum() / (hits + misses).sum(), np.mean(misses > 0)
    most = np.array([one.max() for one in found])
    failed = []
    for rows in product(*(combinations(range(size), count) for size, count in zip(sizes, counts, strict=True))):
        f, d = (np.concatenate([one[list(row)] for one, row in zip(of, rows, strict=True)]) for of in (found, missed))
        one = recall(ExhaustiveImages(strata, f, f + d), sizes, most, misses.max(), delta)
        failed.append((one.low > truth + 1e-9, one.high < truth - 1e-9, one.images_with_misses < with_misses - 1e-9))
    assert (np.mean(failed, axis=0) <= np.array([delta / 2, delta / 2, delta])).all()


def test_weights_undo_the_strata():
    values = [(e.value, truth) for e, truth, _ in (searched(world, seed, 300) for seed in range(100))]
    assert np.mean([value - truth for value, truth in values]) == pytest.approx(0, abs=0.01)
    strata, found, objects = world(0)
    rows = image_sample(strata, 300, 0).rows
    assert found[rows].sum() / objects[rows].sum() < found.sum() / objects.sum() - 0.05


def test_everything_searched_leaves_nothing_open():
    strata, found, objects = world(1)
    estimate = recall(ExhaustiveImages(strata, found, objects), np.bincount(strata), most_in(strata, found), 8, DELTA)
    assert estimate.low == pytest.approx(estimate.high)
    assert estimate.value == pytest.approx(found.sum() / objects.sum())
    assert estimate.images_with_misses == pytest.approx(np.mean(objects > found))


def test_one_image_left_is_bounded_by_what_it_may_hold():
    found, objects = np.full(99, 2), np.full(99, 2)
    one = recall(ExhaustiveImages(np.zeros(99, np.int64), found, objects), np.array([100]), np.array([3]), 4, DELTA)
    assert one.low >= 198 / (198 + 4)
    assert one.high == 1


def test_without_a_miss_the_unsearched_still_count():
    ones = np.ones(20, np.int64)
    perfect = recall(ExhaustiveImages(0 * ones, ones, ones), np.array([500]), np.array([1]), 1, DELTA)
    assert (perfect.value, perfect.high) == (1, 1)
    # The largest bet multiplies by 1 + q in each image; it has half the stake, and the others multiply by less.
    assert (0.5 * 0.9 * DELTA / 2) ** (1 / 20) <= perfect.low <= (0.9 * DELTA / 2) ** (1 / 20)
    blind = recall(ExhaustiveImages(0 * ones, 0 * ones, ones), np.array([500]), np.array([1]), 1, DELTA)
    assert (blind.value, blind.low) == (0, 0)
    assert 1 - (0.5 * DELTA / 2) ** (1 / 20) >= blind.high >= 1 - (DELTA / 2) ** (1 / 20)


def test_a_stratum_without_a_miss_counts_by_its_size():
    strata = np.repeat([0, 1], [100, 100])
    found = np.repeat([0, 2], [100, 100])

    def low(empty):
        return recall(ExhaustiveImages(strata, found, found), np.array([empty, 300]), np.array([0, 2]), 1, DELTA).low

    assert low(300) > low(3_000) > low(30_000)
    # Nobody knows of less than 2 % of images without a box what they hold.
    assert low(30_000) < 600 / (600 + 0.02 * 30_000)


def test_labels_to_be_decided_count_at_their_worst():
    rng = np.random.default_rng(0)
    objects = 2 + rng.poisson(2, 60)
    found, zero = rng.binomial(objects, 0.9), np.zeros(60, np.int64)
    waits = np.where(np.arange(60) < 5, np.minimum(found, 2), 0)

    def estimate(hits, there, undecided=zero):
        return recall(ExhaustiveImages(zero, hits, there, undecided), np.array([900]), np.array([12]), 12, DELTA)

    open_ones = estimate(found - waits, objects - waits, waits)
    for outcome in (
        estimate(found, objects),
        estimate(found - waits, objects),
        estimate(found - waits, objects - waits),
    ):
        assert open_ones.low <= outcome.low + 1e-6
        assert open_ones.high >= outcome.high - 1e-6
        assert open_ones.images_with_misses >= outcome.images_with_misses - 1e-6


def test_an_object_drawn_over_an_undecided_label_may_be_that_labels():
    ones = np.ones(10, np.int64)
    over = recall(ExhaustiveImages(0 * ones, ones, 2 * ones, ones), np.array([10]), np.array([2]), 2, DELTA)
    assert (over.low, over.high) == (pytest.approx(1 / 3), 1)


def test_images_passed_over_may_miss_everything():
    found, zero = np.full(40, 3), np.zeros(40, np.int64)
    passed = np.arange(40) < 4

    def estimate(searched):
        hits = np.where(searched, found, 0)
        sample = ExhaustiveImages(zero, hits, hits, searched=searched)
        return recall(sample, np.array([40]), np.array([5]), 6, DELTA)

    assert estimate(~passed).low == pytest.approx(36 * 3 / (36 * 3 + 4 * 6))
    assert estimate(~passed).high == 1
    assert estimate(~passed).value == 1
    assert estimate(~passed).images_with_misses == pytest.approx(0.1)
    assert estimate(passed | ~passed).low == 1


def test_the_large_images_left_unfinished_do_not_flatter():
    covered = []
    for seed in range(50):
        strata, found, objects = world(seed)
        rows = image_sample(strata, 300, seed).rows
        waits = np.where(objects[rows] >= 5, found[rows], 0)
        sample = ExhaustiveImages(strata[rows], found[rows] - waits, objects[rows] - waits, waits)
        one = recall(sample, np.bincount(strata), most_in(strata, found), most_missed(found), DELTA)
        covered.append(one.low <= found.sum() / objects.sum() <= one.high)
    assert np.mean(covered) >= 0.81


def test_an_image_that_misses_more_than_assumed_raises_what_is_assumed():
    objects, zero = np.full(50, 4), np.zeros(50, np.int64)
    objects[0] = 14
    sample = ExhaustiveImages(zero, np.full(50, 4), objects)
    assert [recall(sample, np.array([900]), np.array([4]), c, DELTA).most_missed for c in (3, 5, 10, 40)] == [
        *(12, 10, 10, 40)
    ]


def test_what_images_hide_beyond_the_assumed_is_not_counted_in_the_low_end_alone():
    # One image in 100 hides 1,000 objects: most samples of 60 see none of them.
    rng, images = np.random.default_rng(3), 2_000
    strata = np.zeros(images, np.int64)
    found, missed = rng.poisson(3, images), np.where(rng.random(images) < 0.01, 1_000, rng.random(images) < 0.2)
    truth = found.sum() / (found + missed).sum()
    low, counted, high = [], [], []
    for seed in range(100):
        rows = image_sample(strata, 60, seed).rows
        sample = ExhaustiveImages(strata[rows], found[rows], (found + missed)[rows])
        one = recall(sample, np.array([images]), np.array([found.max()]), 8, DELTA)
        low.append(one.low <= truth)
        counted.append(one.low <= found.sum() / (found + np.minimum(missed, one.most_missed)).sum())
        high.append(one.high >= truth)
    assert np.mean(low) < 0.7
    assert np.mean(counted) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean(high) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 100)


def test_an_image_is_assumed_to_miss_as_many_as_its_like_has_labels():
    assert most_missed(np.array([0, 0, 3, 2, 7])) == 7
    assert most_missed(np.array([0] * 100 + [2] * 399 + [900])) == 2
    assert most_missed(np.array([0, 0])) == most_missed(np.zeros(0, np.int64)) == 1


def test_no_object_says_nothing():
    ones = np.ones(3, np.int64)
    found = recall(ExhaustiveImages(0 * ones, 0 * ones, 0 * ones), np.array([10]), np.array([2]), 2, DELTA)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


def test_a_stratum_that_nobody_searched_is_refused():
    ones = np.ones(5, np.int64)
    with pytest.raises(UserError, match="every stratum"):
        recall(ExhaustiveImages(0 * ones, ones, ones), np.array([10, 10]), np.array([1, 1]), 1, DELTA)


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
    strata, most = np.repeat([0, 1], [40, 2]), np.array([9, 9])
    alone = recall(ExhaustiveImages(strata[:40], found[:40], objects[:40]), np.array([400]), most[:1], 9, DELTA)
    both = recall(ExhaustiveImages(strata, found, objects), np.array([400, 2]), most, 9, DELTA)
    assert both.high - both.low < 1.2 * (alone.high - alone.low)
