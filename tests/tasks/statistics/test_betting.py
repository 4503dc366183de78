"""Bets on a sample: valid at any answer, by enumeration; certain at the end; as near as the exact tests."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from vouch_labels.tasks.statistics.betting import Bets, bet_accepted, bet_delivered, grid_of
from vouch_labels.tasks.statistics.threshold_tests import (
    Population,
    Sample,
    certified_step,
    gate_a,
    threshold_grid,
)


def _orders(wrong, labels):
    """Every order of labels with equal scores of which so many are wrong, (labels,) each."""
    for chosen in itertools.combinations(range(labels), wrong):
        order = np.zeros(labels, np.bool_)
        order[list(chosen)] = True
        yield order


@pytest.mark.parametrize(("precision", "missed"), [(0.75, 0.0), (0.75, 0.2), (0.6, 0.0)])
@pytest.mark.parametrize("delta", [0.1, 0.4])
def test_a_broken_accepted_set_ever_passes_with_a_chance_of_delta_at_most(precision, missed, delta):
    labels, scores = 10, np.full(10, 0.9)
    grid = grid_of(scores, np.array([0.9]))
    limit = Fraction(precision).limit_denominator(100)
    broken = int((1 - limit) * (1 - Fraction(missed).limit_denominator(100)) * labels) + 1
    for wrong in range(broken, labels + 1):
        orders = list(_orders(wrong, labels))
        passed = [
            bet_accepted(Sample(scores, order), grid, precision, delta, missed).p_values[0] <= delta for order in orders
        ]
        assert np.mean(passed) <= delta


@pytest.mark.parametrize("missed", [0.0, 0.1])
@pytest.mark.parametrize("known", [(0, 0), (3, 1)])
def test_a_broken_delivered_set_ever_passes_with_a_chance_of_delta_at_most(missed, known):
    """Every order of 7 labels: accepted and wrong, routed and wrong, correct."""
    labels, precision, delta, accepting = 7, 0.7, 0.4, 0.5
    each = missed / (1 - missed)
    for bad, routed in itertools.product(range(labels + 1), repeat=2):
        correct = labels - bad - routed
        unseen = each * (bad + routed + known[1])
        if correct < 0 or not precision * bad + unseen > (1 - precision) * (correct + known[0]):
            continue
        passed = []
        for first in itertools.combinations(range(labels), bad):
            rest = [place for place in range(labels) if place not in first]
            for second in itertools.combinations(rest, routed):
                wrong = np.isin(np.arange(labels), [*first, *second])
                scores = np.where(np.isin(np.arange(labels), second), 0.1, 0.9)
                grid = grid_of(scores, np.array([accepting]))
                bets = bet_delivered(Sample(scores, wrong), grid, precision, delta, Population(labels, *known), missed)
                passed.append(bets.p_values[0] <= delta)
        assert np.mean(passed) <= delta


def test_wealth_is_a_fair_bet_at_best_where_the_guarantee_is_just_broken():
    """Given what was seen, the mean of the next wealth over what is left is not above the wealth."""
    labels, wrong = 8, 3
    scores, grid = np.full(labels, 0.8), grid_of(np.full(labels, 0.8), np.array([0.8]))
    for order in _orders(wrong, labels):
        bets = bet_accepted(Sample(scores, order), grid, 0.75, 0.1).bets
        wealth = np.exp(bets.log_wealth[:, 0])
        for place in range(labels):
            left = order[place:]
            changed = order[: place + 1].copy()
            changed[place] = not changed[place]
            other = np.exp(bet_accepted(Sample(scores[: place + 1], changed), grid, 0.75, 0.1).bets.log_wealth[-1, 0])
            share = float((left == order[place]).mean())
            if share == 1:
                assert wealth[place + 1] <= wealth[place] * (1 + 1e-9)
                continue
            assert share * wealth[place + 1] + (1 - share) * other <= wealth[place] * (1 + 1e-9)


def test_a_set_that_was_seen_whole_passes_if_it_keeps_the_guarantee():
    scores = np.linspace(0.5, 1, 40)
    wrong = np.zeros(40, np.bool_)
    wrong[[3, 17]] = True
    evidence = bet_accepted(Sample(scores, wrong), grid_of(scores, np.array([0.5])), 0.95, 1e-9)
    assert evidence.p_values[0] == 0
    wrong[20] = True
    assert bet_accepted(Sample(scores, wrong), grid_of(scores, np.array([0.5])), 0.95, 1e-9).p_values[0] > 1e-9


def _world(labels, rng):
    scores = rng.beta(4, 1, labels)
    return scores, rng.random(labels) > scores


def test_more_answers_never_take_a_pass_back():
    rng = np.random.default_rng(5)
    scores, wrong = _world(3_000, rng)
    grid = grid_of(scores, threshold_grid(scores, 20))
    rows = rng.permutation(3_000)[:900]
    whole = bet_accepted(Sample(scores[rows], wrong[rows]), grid, 0.9, 0.02)
    for count in (0, 100, 400, 899):
        part = bet_accepted(Sample(scores[rows[:count]], wrong[rows[:count]]), grid, 0.9, 0.02)
        assert (whole.p_values <= part.p_values).all()
        assert np.array_equal(part.bets.log_wealth, whole.bets.log_wealth[: count + 1])


def test_the_bound_is_where_the_test_begins_to_pass():
    rng = np.random.default_rng(7)
    scores, wrong = _world(2_000, rng)
    rows = rng.permutation(2_000)[:500]
    sample, steps = Sample(scores[rows], wrong[rows]), np.array([0.8, 0.4])
    grid, population = grid_of(scores, steps), Population(2_000, 100, 10)
    for make in (
        lambda precision, delta: bet_accepted(sample, grid, precision, delta),
        lambda precision, delta: bet_delivered(sample, grid, precision, delta, population),
    ):
        for step in (0, 1):
            bound = make(0.9, 0.05).bound(step)
            assert make(1 - bound - 1e-3, 0.05).p_values[step] <= 0.05
            assert make(1 - bound + 2e-3, 0.05).p_values[step] > 0.05


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_about_so_many_more_answers_do(share):
    """With as many errors as were seen, a threshold passes after some 0.4 to 2.5 times what was foretold."""
    scores, delta = np.full(20_000, 0.97), 0.02
    grid = grid_of(scores, np.array([0.97]))

    def order(count):
        return np.arange(count) % 50 == 25 if share else np.zeros(count, np.bool_)

    seen = bet_accepted(Sample(scores[:60], order(60)), grid, 0.95, delta)
    (more,) = seen.bets.answers_to(delta)
    assert 0 < more < 1_000
    longer = bet_accepted(Sample(scores[:4_000], order(4_000)), grid, 0.95, delta)
    first = int(np.argmax(longer.bets.log_wealth[:, 0] >= -np.log(delta)))
    assert 0.4 * more <= first - 60 <= 2.5 * more
    assert longer.bets.answers_to(delta) == 0


def test_no_answers_do_where_too_many_are_wrong():
    scores = np.full(1_000, 0.6)
    wrong = np.arange(200) % 5 == 0
    evidence = bet_accepted(Sample(scores[:200], wrong), grid_of(scores, np.array([0.6])), 0.95, 0.05)
    assert np.isinf(evidence.bets.answers_to(0.05)).all()
    assert certified_step(evidence) is None


def test_labels_without_a_score_are_never_accepted():
    scores = np.array([np.nan, 0.9, np.nan, 0.9])
    evidence = bet_accepted(Sample(scores, np.zeros(4, np.bool_)), grid_of(scores, np.array([0.9])), 0.9, 0.5)
    assert evidence.reviewed.tolist() == [2]
    assert isinstance(evidence.bets, Bets)


def test_at_the_end_of_a_sample_it_accepts_nearly_what_the_exact_test_does():
    """At a quarter of its level: on average at least 0.8 of it in a world of 4,000 labels and 600 reviews."""
    exact, bets = [], []
    for number in range(12):
        rng = np.random.default_rng([11, number])
        scores, wrong = _world(4_000, rng)
        steps = threshold_grid(scores, 30)[11:]
        rows = rng.permutation(4_000)[:600]
        sample, grid = Sample(scores[rows], wrong[rows]), grid_of(scores, steps)
        for found, evidence in (
            (exact, gate_a(sample, steps, grid.accepted, 0.85, 0.08)),
            (bets, bet_accepted(sample, grid, 0.85, 0.02)),
        ):
            step = certified_step(evidence)
            found.append(0 if step is None else int(grid.accepted[step]))
    assert np.mean(bets) >= 0.8 * np.mean(exact) > 0


def test_a_sample_without_a_right_label_passes_nothing():
    """Known answers would let some wrong labels be delivered unseen, which is no reason to accept any."""
    scores = np.full(60, 0.9)
    grid, sample = grid_of(scores, np.array([0.9])), Sample(scores[:4], np.ones(4, np.bool_))
    assert bet_delivered(sample, grid, 0.5, 0.1, Population(4, 60, 0)).p_values.tolist() == [1.0]
    assert bet_accepted(sample, grid_of(scores[:4], np.array([0.9])), 0.5, 0.1).p_values.tolist() == [1.0]
