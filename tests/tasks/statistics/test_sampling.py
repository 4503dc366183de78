import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.tasks.statistics.sampling import (
    AUDIT,
    CERTIFICATION,
    allocate,
    certification_sample,
    first_sample,
    on_fit_side,
    score_bins,
)

SCORES = np.random.default_rng(0).beta(5, 2, 500)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 300), st.integers(0, 3), st.booleans())
def test_shares_add_up_and_stay_within_their_strata(sizes, count, least, proportional):
    sizes = np.array(sizes, np.int64)
    taken = allocate(sizes, count, least, proportional)
    assert taken.sum() == min(count, sizes.sum())
    assert (taken >= 0).all()
    assert (taken <= sizes).all()
    if np.minimum(sizes, least).sum() <= count:
        assert (taken >= np.minimum(sizes, least)).all()


def frequencies(draw, size, draws=3000):
    """How often each row was drawn."""
    counts = np.zeros(size)
    for seed in range(draws):
        counts[draw(seed).rows] += 1
    return counts / draws


def declared(drawn, size):
    found = np.full(size, np.nan)
    found[drawn.rows] = drawn.inclusion
    return found


def test_the_first_sample_is_drawn_as_declared():
    size, draws = len(SCORES), 3000
    drawn = first_sample(SCORES, 60, 0)
    assert len(drawn.rows) == len(set(drawn.rows.tolist())) == 60
    assert (drawn.inclusion > 0).all()
    seen, expected = frequencies(lambda seed: first_sample(SCORES, 60, seed), size, draws), declared(drawn, size)
    error = (seen - expected)[drawn.rows] / np.sqrt(expected * (1 - expected) / draws)[drawn.rows]
    assert np.abs(error).max() < 4.5


def test_half_of_it_spreads_over_the_range():
    bins = score_bins(SCORES, 10)
    drawn = np.bincount(bins[first_sample(SCORES, 100, 3).rows], minlength=10)
    assert drawn.min() >= min(5, np.bincount(bins).min())


def test_missing_scores_are_drawn_too():
    scores = np.where(np.arange(400) < 40, np.nan, np.linspace(0, 1, 400))
    rows = first_sample(scores, 88, 1).rows
    assert (rows < 40).sum() >= 4


def test_all_are_taken_where_there_are_no_more():
    drawn = first_sample(SCORES[:30], 100, 0)
    assert sorted(drawn.rows) == list(range(30))
    assert drawn.inclusion == pytest.approx(np.ones(30))
    assert len(first_sample(np.zeros(0), 10, 0).rows) == 0


def test_the_certification_sample_is_simple_random():
    among = np.arange(60) % 3 == 0
    seen = frequencies(lambda seed: certification_sample(among, 5, seed), 60)
    assert seen[~among].max() == 0
    assert np.abs(seen[among] - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 3000)


def test_a_larger_certification_sample_begins_with_the_smaller_one():
    among = np.ones(100, np.bool_)
    small, large = certification_sample(among, 10, 5).rows, certification_sample(among, 50, 5).rows
    assert np.array_equal(large[:10], small)
    assert not np.array_equal(certification_sample(among, 10, 5, number=1).rows, small)
    assert not np.array_equal(certification_sample(among, 10, 6).rows, small)


def test_purposes_have_streams_of_their_own():
    scores = np.linspace(0, 1, 1000)
    fit = set(first_sample(scores, 300, 9).rows.tolist())
    certifying = set(certification_sample(np.ones(1000, np.bool_), 300, 9).rows.tolist())
    audited = set(certification_sample(np.ones(1000, np.bool_), 300, 9, purpose=AUDIT).rows.tolist())
    for one, other in itertools.combinations((fit, certifying, audited), 2):
        assert 60 < len(one & other) < 120


@pytest.mark.parametrize("purpose", [CERTIFICATION, AUDIT])
def test_what_certifies_is_drawn_as_declared(purpose):
    among = np.arange(365) % 5 != 0
    drawn = certification_sample(among, 60, 1, 3, purpose)
    assert len(set(drawn.rows.tolist())) == 60
    assert among[drawn.rows].all()
    assert drawn.inclusion == pytest.approx(np.full(60, 60 / among.sum()))
    seen = frequencies(lambda seed: certification_sample(among, 60, seed, 3, purpose), 365)
    assert np.abs(seen[among] - 60 / among.sum()).max() < 0.04
    assert np.array_equal(certification_sample(among, 60, 1, 3, purpose).rows, drawn.rows)
    assert not np.array_equal(certification_sample(among, 60, 1, 4, purpose).rows, drawn.rows)


@pytest.mark.parametrize("purpose", [CERTIFICATION, AUDIT])
def test_no_more_than_there_is_can_be_drawn(purpose):
    few = certification_sample(np.arange(10) < 4, 100, 0, 0, purpose)
    assert (sorted(few.rows.tolist()), few.inclusion.tolist()) == ([0, 1, 2, 3], [1, 1, 1, 1])
    assert len(certification_sample(np.zeros(10, np.bool_), 10, 0, 0, purpose).rows) == 0


IMAGES = [f"image-{number}" for number in range(4000)]


def test_an_image_keeps_its_side_whatever_others_there_are():
    sides = on_fit_side(IMAGES, 0.3, 7)
    assert on_fit_side(IMAGES[::-1], 0.3, 7).tolist() == sides[::-1].tolist()
    assert on_fit_side([IMAGES[17]], 0.3, 7)[0] == sides[17]
    assert abs(sides.mean() - 0.3) < 0.03


def test_a_larger_share_keeps_the_fit_side():
    small, large = on_fit_side(IMAGES, 0.1, 7), on_fit_side(IMAGES, 0.4, 7)
    assert not (small & ~large).any()


def test_seeds_give_independent_splits():
    first, second = on_fit_side(IMAGES, 0.5, 1), on_fit_side(IMAGES, 0.5, 2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_known_answer():
    assert on_fit_side(["a", "b", "c", "d", "e", "f"], 0.5, 0).tolist() == [False, True, False, True, True, False]


def test_all_and_nothing():
    assert not on_fit_side(IMAGES, 0.0, 1).any()
    assert on_fit_side(IMAGES, 1.0, 1).all()
    assert on_fit_side([], 0.5, 1).shape == (0,)
