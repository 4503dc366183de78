import numpy as np
import pytest
from scipy import stats

from tasks.certify.bounds import most_errors
from tasks.certify.gates import Sample, accepted_counts, gate_a
from tasks.certify.ladder import certified_step, ladder
from tasks.certify.planning import FitLabels, plan_gate_a, predicted_shares, reviews_needed
from tasks.certify.sampling import certification_sample

DELTA = 0.1


def batch(seed, count=10_000):
    """Scores that are calibrated: the share of wrong labels at p is 1 - p."""
    rng = np.random.default_rng([21, seed])
    scores = rng.beta(4, 1, count)
    return scores, rng.random(count) > scores


def fit_labels(scores, wrong, seed, count=400):
    rows = np.random.default_rng([22, seed]).permutation(len(scores))[:count]
    return FitLabels(scores[rows], wrong[rows], np.ones(count))


def test_predicted_shares_hold_the_true_one():
    scores, wrong = batch(0)
    steps = ladder(scores)
    shares = predicted_shares(scores, steps, fit_labels(scores, wrong, 0))
    true = np.array([wrong[scores >= step].mean() for step in steps])
    assert (shares[0] <= true)[5:].all()
    assert (true <= shares[-1])[5:].all()


def test_a_plan_passes_about_as_often_as_it_says():
    certified, powers, automated, strict = [], [], [], []
    for seed in range(60):
        scores, wrong = batch(seed)
        plan = plan_gate_a(scores, fit_labels(scores, wrong, seed), 600, 0.95, DELTA)
        assert plan.power >= 0.8
        rows = certification_sample(scores >= plan.region, 600, seed).rows
        drawn = Sample(scores[rows], wrong[rows])
        found = gate_a(drawn, plan.thresholds, accepted_counts(scores, plan.thresholds), 0.95, DELTA)
        step = certified_step(found)
        certified.append(step is not None)
        powers.append(plan.power)
        automated.append(0 if step is None else (scores >= plan.thresholds[step]).mean())
        # The same reviews without a plan: drawn from all labels, the ladder from its strictest end.
        rows = certification_sample(np.ones(len(scores), np.bool_), 600, seed).rows
        steps = ladder(scores)
        found = gate_a(Sample(scores[rows], wrong[rows]), steps, accepted_counts(scores, steps), 0.95, DELTA)
        step = certified_step(found)
        strict.append(0 if step is None else (scores >= steps[step]).mean())
    assert np.mean(certified) == pytest.approx(np.mean(powers), abs=0.1)
    assert np.mean(automated) > 2 * np.mean(strict)


def test_where_nothing_can_pass_the_plan_is_empty():
    scores, wrong = batch(1)
    plan = plan_gate_a(scores, fit_labels(scores, wrong, 1), 30, 0.95, DELTA)
    assert not len(plan.thresholds)
    assert plan.power < 0.8
    assert plan.region == np.inf
    assert not len(plan_gate_a(np.full(9, np.nan), fit_labels(scores, wrong, 1), 600, 0.95, DELTA).thresholds)


def test_constant_scores_have_one_threshold():
    fit = FitLabels(np.full(100, 0.99), np.zeros(100, np.bool_), np.ones(100))
    assert plan_gate_a(np.full(5000, 0.99), fit, 300, 0.95, DELTA).thresholds.tolist() == [0.99]


@pytest.mark.parametrize(("error", "limit"), [(0.0, 0.05), (0.02, 0.05), (0.04, 0.05), (0.005, 0.01)])
def test_reviews_needed_have_the_power(error, limit):
    count = reviews_needed(error, limit, DELTA)
    assert stats.binom.cdf(most_errors(count, limit, DELTA), count, error) >= 0.8
    fewer = int(count * 0.9)
    assert stats.binom.cdf(most_errors(fewer, limit, DELTA), fewer, error) < 0.85


def test_no_number_of_reviews_helps_where_too_many_are_wrong():
    assert reviews_needed(0.05, 0.05, DELTA) is None
    assert reviews_needed(0.3, 0.05, DELTA) is None
    assert reviews_needed(0.01 - 1e-9, 0.01, DELTA) is None
