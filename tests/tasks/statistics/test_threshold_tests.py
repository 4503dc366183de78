import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.tasks.statistics.bounds import (
    TRUSTED,
    ReviewerError,
    binomial_p,
    hypergeometric_p,
    labels_needed,
    reviewer_error,
)
from vouch_labels.tasks.statistics.sampling import certification_sample
from vouch_labels.tasks.statistics.threshold_tests import (
    SPARE_ERRORS,
    Evidence,
    Sample,
    accepted_counts,
    certified_groups,
    certified_step,
    delta_of_test,
    gate_a,
    gate_b,
    threshold_grid,
)

DELTA = 0.1


def sample(scores, wrong):
    return Sample(np.array(scores, np.float64), np.array(wrong, np.bool_))


def test_gate_a_counts_what_is_at_or_above():
    drawn = sample([0.9, 0.8, 0.8, 0.7, np.nan], [0, 1, 0, 1, 1])
    evidence = gate_a(drawn, np.array([0.95, 0.8, 0.7]), np.array([3, 30, 50]), 0.95, DELTA)
    assert evidence.reviewed.tolist() == [0, 3, 4]
    assert evidence.errors.tolist() == [0, 1, 2]
    assert evidence.p_values.tolist() == pytest.approx(
        [1.0, float(hypergeometric_p(1, 3, 30, 0.05)), float(hypergeometric_p(2, 4, 50, 0.05))]
    )


def test_gate_b_drops_what_people_mend():
    drawn = sample([0.9, 0.8, 0.7, 0.6, np.nan], [0, 1, 1, 0, 1])
    evidence = gate_b(drawn, np.array([0.95, 0.8, 0.5]), 0.95, DELTA)
    assert evidence.reviewed.tolist() == [2, 3, 4]
    assert evidence.errors.tolist() == [0, 1, 2]
    assert evidence.p_values == pytest.approx(binomial_p([0, 1, 2], [2, 3, 4], 0.05))


def test_a_score_that_is_missing_is_counted_nowhere():
    assert accepted_counts(np.array([np.nan, 0.2, 0.4]), np.array([0.4, 0.2, -1.0])).tolist() == [1, 2, 2]


def population(rng, count=3000, precision=0.95, top=0.3):
    """Scores that are worthless above `top` of the labels: there the share of wrong ones is just above 1 - T."""
    scores = np.round(rng.random(count), 3)
    wrong = rng.random(count) < 0.5
    high = np.flatnonzero(scores >= 1 - top)
    bad = int(np.floor((1 - precision) * len(high) + 1e-9)) + 1
    wrong[high] = False
    wrong[rng.permutation(high)[:bad]] = True
    return scores, wrong


def test_at_the_boundary_gate_a_certifies_a_broken_guarantee_with_chance_delta_at_most():
    rng = np.random.default_rng(1)
    scores, wrong = population(rng)
    steps = np.array([0.7])
    accepted = accepted_counts(scores, steps)
    passed = 0
    for seed in range(3000):
        rows = certification_sample(scores >= 0.7, 300, seed).rows
        evidence = gate_a(Sample(scores[rows], wrong[rows]), steps, accepted, 0.95, DELTA)
        passed += certified_step(evidence) is not None
    assert 0.03 < passed / 3000 <= DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / 3000)


def test_at_the_boundary_gate_b_certifies_a_broken_guarantee_with_chance_delta_at_most():
    rng = np.random.default_rng(2)
    scores = rng.random(4000)
    wrong = rng.random(4000) < 0.4
    accepted = scores >= 0.5
    delivered = accepted | ~wrong
    # Errors are moved until the delivered set is wrong by a hair.
    spare = np.flatnonzero(accepted & wrong)
    wrong[spare[int(0.05 * delivered.sum()) + 1 :]] = False
    assert (accepted & wrong).sum() > 0.05 * (accepted | ~wrong).sum()
    passed = 0
    for seed in range(3000):
        rows = certification_sample(np.ones(4000, np.bool_), 500, seed).rows
        evidence = gate_b(Sample(scores[rows], wrong[rows]), np.array([0.5]), 0.95, DELTA)
        passed += certified_step(evidence) is not None
    assert 0.03 < passed / 3000 <= DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / 3000)


def test_ties_are_accepted_together():
    scores = np.array([0.9] * 50 + [0.4] * 50)
    steps = threshold_grid(scores)
    assert steps.tolist() == [0.9, 0.4]
    assert accepted_counts(scores, steps).tolist() == [50, 100]


def reviewed_by_tired_people(seed, eta, corrected):
    """A sample that a reviewer looks at who misses a share of the wrong labels; the guarantee is just broken."""
    rng = np.random.default_rng([5, seed])
    wrong = rng.random(400) < 0.0505
    seen = wrong & (rng.random(400) >= eta)
    missed = int(rng.binomial(200, eta))
    reviewers = reviewer_error(200, missed, DELTA) if corrected else TRUSTED
    evidence = gate_a(sample(np.ones(400), seen), np.array([0.5]), np.array([10**6]), 0.95, DELTA, reviewers)
    return certified_step(evidence) is not None


@pytest.mark.parametrize(("corrected", "low", "high"), [(False, 0.15, 1.0), (True, 0.0, 0.11)])
def test_reviewers_who_miss_errors_break_the_guarantee_unless_they_are_corrected(corrected, low, high):
    rate = np.mean([reviewed_by_tired_people(seed, 0.16, corrected) for seed in range(1000)])
    assert low <= rate <= high


def test_gate_b_counts_what_reviewers_leave_in_the_routed_part():
    drawn = sample([0.9] * 500 + [0.1] * 200, [0] * 500 + [1] * 150 + [0] * 50)
    steps = np.array([0.5])
    sharp = gate_b(drawn, steps, 0.95, DELTA)
    careless = gate_b(drawn, steps, 0.95, DELTA, ReviewerError(0.0, 0.10, 0.02))
    worthless = gate_b(drawn, steps, 0.95, DELTA, ReviewerError(0.0, 0.30, 0.02))
    assert sharp.limits[0] == pytest.approx(0.05)
    assert 0.05 - 0.11 * 200 / 550 < careless.limits[0] < 0.05 - 0.11 * 150 / 550
    assert worthless.limits[0] == 0
    assert worthless.p_values[0] == 1
    assert careless.delta == pytest.approx((DELTA - 0.02) / 2)


def test_no_plants_certify_nothing():
    unknown = reviewer_error(0, 0, DELTA)
    assert unknown.accepted == unknown.routed == 1
    drawn = sample(np.ones(1000), np.zeros(1000))
    assert certified_step(gate_a(drawn, np.array([0.5]), np.array([1000]), 0.95, DELTA, unknown)) is None
    assert certified_step(gate_b(drawn, np.array([0.5]), 0.95, DELTA, unknown)) is None


def test_plants_on_both_sides_have_bounds_of_their_own():
    both = reviewer_error(100, 10, DELTA, 100, 1)
    assert 0.10 < both.accepted < 0.25
    assert 0.01 < both.routed < 0.10
    assert both.spent == pytest.approx(0.02)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9, np.nan]), max_size=50), st.integers(1, 20))
def test_a_ladder_descends_over_values_that_are_there(scores, steps):
    scores = np.array(scores, np.float64)
    found = threshold_grid(scores, steps)
    known = scores[np.isfinite(scores)]
    assert (np.diff(found) < 0).all()
    assert np.isin(found, known).all()
    assert len(found) <= steps
    assert bool(len(found)) == bool(len(known))
    assert not len(found) or found[-1] == known.min()


def test_steps_are_equally_many_labels_apart():
    scores = np.random.default_rng(0).permutation(1000) / 1000
    assert np.diff(accepted_counts(scores, threshold_grid(scores, 10)), prepend=0).tolist() == [100] * 10


def evidence(p_values):
    zeros = np.zeros(len(p_values), np.int64)
    values = np.linspace(1, 0, len(p_values))
    return Evidence(values, zeros, zeros, values, np.array(p_values), DELTA)


def test_the_first_failure_ends_the_sequence():
    assert certified_step(evidence([0.01, 0.1, 0.2, 0.01])) == 1
    assert certified_step(evidence([0.2, 0.01])) is None
    assert certified_step(evidence([0.05, 0.05])) == 1
    assert certified_step(evidence([])) is None


def never_enough(seed):
    """Fifty nested sets, wrong a little more often than the guarantee allows, and a sample of all."""
    rng = np.random.default_rng([11, seed])
    scores = rng.random(20_000)
    wrong = rng.random(20_000) < 0.0525
    steps = threshold_grid(scores, 50)
    rows = certification_sample(np.ones(20_000, np.bool_), 2000, seed).rows
    drawn = Sample(scores[rows], wrong[rows])
    return gate_a(drawn, steps, accepted_counts(scores, steps), 0.95, DELTA), scores, wrong


def broken(threshold, scores, wrong):
    return wrong[scores >= threshold].mean() > 0.05


def test_order_keeps_the_guarantee_and_picking_afterwards_does_not():
    """The same tests: in order, any that passes, and the naive choice by the share of errors that was seen."""
    ordered = anywhere = naive = 0
    draws = 300
    for seed in range(draws):
        found, scores, wrong = never_enough(seed)
        step = certified_step(found)
        ordered += step is not None and broken(found.thresholds[step], scores, wrong)
        passing = np.flatnonzero(found.p_values <= DELTA)
        anywhere += len(passing) > 0 and broken(found.thresholds[passing[-1]], scores, wrong)
        seen = np.flatnonzero((found.reviewed > 0) & (found.errors <= 0.05 * found.reviewed))
        naive += len(seen) > 0 and broken(found.thresholds[seen[-1]], scores, wrong)
    limit = DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / draws)
    assert ordered / draws <= limit
    assert anywhere / draws > limit
    assert naive / draws > 0.4


def test_looking_again_after_a_refusal_breaks_the_guarantee_unless_delta_is_spent():
    """One threshold, just broken; reviews are added until it passes or ten looks are over."""

    rng = np.random.default_rng(4)
    errors = np.cumsum(rng.binomial(100, 0.0501, (2000, 10)), axis=1)
    reviewed = 100 * np.arange(1, 11)
    p_values = binomial_p(errors, reviewed, 0.05)
    spent = np.array([delta_of_test(DELTA, look) for look in range(1, 11)])
    assert (p_values <= DELTA).any(axis=1).mean() > 0.15
    assert (p_values <= spent).any(axis=1).mean() <= DELTA + 2 * np.sqrt(0.09 / 2000)
    assert spent.sum() <= DELTA


LABELS = np.array([4000, 9000, 300, 2000, 0, 50])


def test_frequent_classes_stand_alone_and_rare_ones_are_pooled():
    groups = certified_groups(LABELS, 2400, 0.95, 0.1)
    assert [group.tolist() for group in groups] == [[1], [0], [3, 2, 5, 4]]


@pytest.mark.parametrize("reviews", [0, 100, 600, 2400, 50_000])
def test_every_class_is_in_one_group_and_groups_get_enough(reviews):
    groups = certified_groups(LABELS, reviews, 0.95, 0.1)
    assert sorted(np.concatenate(groups)) == list(range(len(LABELS)))
    if len(groups) > 1:
        least = labels_needed(SPARE_ERRORS, 0.05, 0.1 / len(groups))
        assert min(LABELS[group].sum() for group in groups) * reviews / LABELS.sum() >= least


def test_without_labels_there_is_one_group():
    assert len(certified_groups(np.zeros(3, np.int64), 500, 0.95, 0.1)) == 1


def test_looks_spend_delta_and_no_more():
    spent = [delta_of_test(0.1, look) for look in range(1, 50)]
    assert spent[0] == pytest.approx(0.08)
    assert sum(spent) == pytest.approx(0.1)
