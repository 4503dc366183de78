"""The important rows of the certificate's table on fixed seeds and few draws; the benchmark has the full ones."""

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.routing.certificate import NIGHTS, STRETCHED, families, fitted, play, play_nights
from benchmarks.routing.contract import DELTA, SIGNALS, World, draw
from vouch_labels.tasks.statistics.fit_calibrator import fit_calibrator

DRAWS = 40
MOST = binom.ppf(0.99, DRAWS, DELTA)
"""Broken draws that a method which breaks its guarantee in exactly delta of all draws stays within at .99."""
FAMILIES = {family.rows[0].name: family for family in families()}


def played(name, draws=DRAWS):
    """Draws of a row by method: (draws, fields of Result)."""
    family = FAMILIES[name]
    found = [play(family, number) for number in range(draws)]
    return {
        row.name: [np.array([getattr(one[place], way) for one in found], float) for way in ("before", "now")]
        for place, row in enumerate(family.rows)
    }


@pytest.mark.parametrize(
    "name",
    [
        *("80 % right, 500 labels", "1,000 labels come later, 40 % right"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("ICC .30", "video, 300 frames", "exact copies", "one bad class", "one image of 900 boxes"),
                *("500 classes of 3 labels", "just below T 0.95"),
            )
        ),
    ],
)
def test_the_guarantee_is_kept(name):
    ((_, now),) = played(name).values()
    assert now[:, 1].sum() <= MOST
    assert now[:, 0].mean() > 0


@pytest.mark.slow
def test_the_guarantee_is_kept_whatever_the_scores_are():
    rows = played("80 % right, 400 reviews")
    assert all(now[:, 1].sum() <= MOST for _, now in rows.values())
    assert rows["anti-correlated"][1][:, 0].mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["83 % right, reviewers miss 5 %", "83 % right, led reviewers miss 5 %"])
def test_reviewers_who_miss_what_is_assumed_do_not_break_it(name):
    assert all(now[:, 1].sum() <= MOST for _, now in played(name).values())


@pytest.mark.slow
def test_stopping_at_the_first_pass_does_not_break_the_guarantee():
    """Of labels just below T, whatever their scores; the exact test at each look would break it."""
    rows = played("just below T 0.95, stopped at the first pass, gate accepted")
    assert all(now[:, 1].sum() <= MOST for _, now in rows.values())


def test_the_guarantee_is_not_stretched_over_images_that_came_later():
    ((before, now),) = played(STRETCHED, 20).values()
    assert before[:, 1].all()
    assert before[:, 2].mean() < 0.85
    assert not now[:, 1].any()
    assert now[:, 3].mean() == pytest.approx(0.58, abs=0.01)


@pytest.mark.parametrize("name", ["80 % right, 500 labels", "93 % right, 500 labels"])
def test_more_is_accepted_for_as_many_reviews(name):
    ((before, now),) = played(name, 120).values()
    gain = now[:, 0] - before[:, 0]
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))


def test_no_night_has_a_claim_that_does_not_hold():
    good, falling = ([play_nights(nights, number) for number in range(DRAWS)] for nights in NIGHTS.values())
    for nights in (good, falling):
        assert sum(one.now.broken for one in nights) <= MOST
    assert sum(one.before.broken for one in falling) > MOST
    assert np.mean([one.now.covered for one in good]) > 0.9


def test_equal_numbers_give_equal_draws():
    family = FAMILIES["four kinds of errors"]
    assert play(family, 3) == play(family, 3)


@pytest.mark.parametrize(("count", "base"), [(50, 1.4), (200, 2.6), (200, -0.2)])
def test_the_fast_fit_is_that_of_the_calibrator(count, base):
    rng = np.random.default_rng(count)
    batch = draw(World("x", images=200, base=base), rng)
    rows, names = rng.permutation(len(batch.correct))[:count], tuple(map(str, range(12)))
    correct, images = batch.correct[rows], batch.images[rows]
    slow = fit_calibrator(batch.signals[rows], SIGNALS, batch.classes[rows], names, correct, images, 1)
    scores, held_out = fitted(batch, rows, correct, rng, folds=True)
    assert scores == pytest.approx(slow.calibrator.probabilities(batch.signals, batch.classes, names), abs=0.01)
    # Other folds, so not equal.
    assert ((held_out - correct) ** 2).mean() == pytest.approx(slow.brier, rel=0.2)
