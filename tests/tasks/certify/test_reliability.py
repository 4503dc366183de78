import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from tasks.certify.reliability import reliability


def drawn(count, off=0.0):
    rng = np.random.default_rng(0)
    p = rng.random(count)
    return np.clip(p + off, 0, 1), rng.random(count) < p


def test_what_is_calibrated_has_little_error_and_what_is_off_has_its_offset():
    assert reliability(*drawn(20_000), np.ones(20_000)).calibration_error < 0.02
    assert reliability(*drawn(20_000, 0.1), np.ones(20_000)).calibration_error == pytest.approx(0.095, abs=0.01)


def test_brier_is_scikit_learns():
    p, correct = drawn(500)
    weights = np.linspace(1, 5, 500)
    expected = brier_score_loss(correct, p, sample_weight=weights)
    assert reliability(p, correct, weights).brier == pytest.approx(expected)


def test_bins_hold_equally_many():
    found = reliability(*drawn(100), np.ones(100), bins=10)
    assert found.labels.tolist() == [10] * 10
    assert (np.diff(found.stated) > 0).all()


def test_weights_undo_how_labels_were_drawn():
    p, correct = np.full(100, 0.5), np.arange(100) < 80
    even = np.where(correct, 1 / 80, 1 / 20)
    assert reliability(p, correct, np.ones(100), bins=1).seen[0] == pytest.approx(0.8)
    assert reliability(p, correct, even, bins=1).seen[0] == pytest.approx(0.5)


def test_missing_probabilities_are_left_out():
    found = reliability(np.array([0.5, np.nan]), np.array([True, False]), np.ones(2))
    assert found.labels.tolist() == [1]
    assert np.isnan(reliability(np.array([np.nan]), np.array([True]), np.ones(1)).brier)


def test_equal_probabilities_share_a_bin():
    probabilities, correct = np.repeat([0.2, 0.8], 50), np.arange(100) % 4 == 0
    found = reliability(probabilities, np.sort(correct), np.ones(100), bins=10)
    assert found.labels.tolist() == [50, 50]
    assert found.stated == pytest.approx([0.2, 0.8])
    assert found.seen == pytest.approx([0, 0.5])
    assert found.calibration_error == pytest.approx(0.25)
