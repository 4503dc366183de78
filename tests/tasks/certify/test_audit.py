import numpy as np
import pytest

from tasks.certify.audit import Audited, audited_precision, score_drift
from tasks.certify.bounds import lower_bound
from tasks.certify.sampling import audit_sample, audit_strata


def audited(seed, precision=0.96, bias=0.0, count=150, size=4000):
    """A batch of accepted labels, its audit, and the truth; p(correct) is off by `bias`."""
    rng = np.random.default_rng([31, seed])
    p = 1 - (1 - precision) * 2 * rng.random(size)
    correct = rng.random(size) < p
    classes = rng.integers(0, 3, size)
    said = np.clip(p + bias, 0, 1)
    drawn = audit_sample(classes, said, count, seed, 0)
    strata = audit_strata(classes, said, count)
    rows = drawn.rows
    sample = Audited(said[rows], strata[rows], correct[rows], drawn.inclusion)
    estimate = audited_precision(said.mean(), np.bincount(strata), sample, 0.1)
    return estimate, correct.mean()


@pytest.mark.parametrize("bias", [0.0, -0.3, 0.04])
def test_the_estimate_is_unbiased_whatever_the_calibrator_says(bias):
    differences = [estimate.value - truth for estimate, truth in (audited(seed, bias=bias) for seed in range(300))]
    assert np.mean(differences) == pytest.approx(0, abs=3 * np.std(differences) / np.sqrt(300) + 0.001)


@pytest.mark.parametrize(("precision", "bias"), [(0.96, 0.0), (0.96, -0.1), (0.99, 0.0), (0.9, 0.05)])
def test_the_interval_covers(precision, bias):
    covered = [e.low <= truth <= e.high for e, truth in (audited(s, precision, bias) for s in range(300))]
    assert np.mean(covered) >= 0.9 - 2 * np.sqrt(0.09 / 300)


def test_without_an_error_the_interval_still_has_its_width():
    sample = Audited(np.full(50, 0.97), np.zeros(50, np.int64), np.ones(50, np.bool_), np.full(50, 0.05))
    found = audited_precision(0.97, np.array([1000]), sample, 0.1)
    assert found.value == pytest.approx(1)
    assert found.low <= float(lower_bound(50, 50, 0.05)) + 1e-9
    assert found.high == 1


def test_nothing_audited_says_nothing():
    none = np.zeros(0, np.int64)
    found = audited_precision(0.9, np.array([9]), Audited(np.zeros(0), none, none == 0, np.zeros(0)), 0.1)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


def test_drift_asks_for_more_audit_and_no_drift_does_not():
    rng = np.random.default_rng(0)
    before, same, moved = rng.normal(size=5000), rng.normal(size=5000), rng.normal(0.5, 1, 5000)
    assert score_drift(before, same).audit_factor == 1
    assert score_drift(before, moved).audit_factor > 1
    # Significant with so many labels, but too little to matter.
    slight = score_drift(rng.normal(size=200_000), rng.normal(0.05, 1, 200_000))
    assert slight.p_value < 0.01
    assert slight.audit_factor == 1


def test_gaps_are_left_out_and_only_gaps_are_a_drift():
    values = np.array([0.1, np.nan, 0.2, 0.3])
    assert score_drift(values, values[[0, 2, 3]]).distance == 0
    assert score_drift(values, np.full(3, np.nan)).audit_factor > 1
    assert score_drift(np.zeros(0), np.zeros(0)).audit_factor == 1
