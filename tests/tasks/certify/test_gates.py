import numpy as np
import pytest

from tasks.certify.bounds import binomial_p, hypergeometric_p
from tasks.certify.gates import Sample, accepted_counts, gate_a, gate_b
from tasks.certify.ladder import certified_step, ladder
from tasks.certify.reviewers import TRUSTED, ReviewerError, reviewer_error
from tasks.certify.sampling import certification_sample

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


def test_at_the_boundary_gate_a_certifies_a_broken_promise_with_chance_delta_at_most():
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


def test_at_the_boundary_gate_b_certifies_a_broken_promise_with_chance_delta_at_most():
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
    steps = ladder(scores)
    assert steps.tolist() == [0.9, 0.4]
    assert accepted_counts(scores, steps).tolist() == [50, 100]


def reviewed_by_tired_people(seed, eta, corrected):
    """A sample that a reviewer looks at who misses a share of the wrong labels; the promise is just broken."""
    rng = np.random.default_rng([5, seed])
    wrong = rng.random(400) < 0.0505
    seen = wrong & (rng.random(400) >= eta)
    missed = int(rng.binomial(200, eta))
    reviewers = reviewer_error(200, missed, DELTA) if corrected else TRUSTED
    evidence = gate_a(sample(np.ones(400), seen), np.array([0.5]), np.array([10**6]), 0.95, DELTA, reviewers)
    return certified_step(evidence) is not None


@pytest.mark.parametrize(("corrected", "low", "high"), [(False, 0.15, 1.0), (True, 0.0, 0.11)])
def test_reviewers_who_miss_errors_break_the_promise_unless_they_are_corrected(corrected, low, high):
    rate = np.mean([reviewed_by_tired_people(seed, 0.16, corrected) for seed in range(1000)])
    assert low <= rate <= high


def test_gate_b_counts_what_reviewers_leave_in_the_routed_part():
    drawn = sample([0.9] * 500 + [0.1] * 200, [0] * 500 + [1] * 150 + [0] * 50)
    steps = np.array([0.5])
    sharp = gate_b(drawn, steps, 0.95, DELTA)
    careless = gate_b(drawn, steps, 0.95, DELTA, ReviewerError(0.0, 0.10, 0.02))
    hopeless = gate_b(drawn, steps, 0.95, DELTA, ReviewerError(0.0, 0.30, 0.02))
    assert sharp.limits[0] == pytest.approx(0.05)
    assert 0.05 - 0.11 * 200 / 550 < careless.limits[0] < 0.05 - 0.11 * 150 / 550
    assert hopeless.limits[0] == 0
    assert hopeless.p_values[0] == 1
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
