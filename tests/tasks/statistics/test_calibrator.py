import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.calibrator import Calibrator, reliability
from vouch_labels.tasks.statistics.fit_calibrator import FEWEST_GAPS, fit_calibrator

NAMES = ("detector_score", "clip_margin")
CLASSES = ("cat", "dog", "heron")


def labels(count, seed=0, slope=1.5, shape=None):
    """Signals (n, 2), classes, verdicts and images: dogs are wrong more often, the second signal says most."""
    rng = np.random.default_rng(seed)
    signals = rng.normal(3, 2, (count, 2))
    classes = rng.integers(0, 2, count)
    logits = 0.3 * (signals[:, 0] - 3) + slope * (signals[:, 1] - 3) / 2 + np.where(classes == 1, -1.0, 1.0)
    correct = rng.random(count) < (expit(logits) if shape is None else shape(logits))
    return signals, classes, correct, np.arange(count) // 4


def fit(signals, classes, correct, images, seed=1):
    return fit_calibrator(signals, NAMES, classes, CLASSES, correct, images, seed)


def test_it_finds_the_probabilities():
    signals, classes, correct, images = labels(4000)
    fitted = fit(signals, classes, correct, images)
    fresh, kinds, _, _ = labels(2000, seed=5)
    truth = expit(0.3 * (fresh[:, 0] - 3) + 0.75 * (fresh[:, 1] - 3) + np.where(kinds == 1, -1.0, 1.0))
    found = fitted.calibrator.probabilities(fresh, kinds, CLASSES)
    assert np.abs(found - truth).mean() < 0.02
    assert fitted.brier < 0.85 * fitted.brier_of_rate
    assert not fitted.isotonic


def test_the_scale_of_signals_does_not_matter():
    signals, classes, correct, images = labels(300)
    one = fit(signals, classes, correct, images).calibrator.probabilities(signals, classes, CLASSES)
    scaled = signals * [1000, 0.001] + [5, -7]
    other = fit(scaled, classes, correct, images).calibrator.probabilities(scaled, classes, CLASSES)
    assert one == pytest.approx(other, abs=1e-4)


def test_a_class_without_labels_is_an_average_one():
    signals, classes, correct, images = labels(2000)
    calibrator = fit(signals, classes, correct, images).calibrator
    point = np.full((4, 2), 3.0)
    cat, dog, heron, unknown = calibrator.probabilities(point, np.arange(4), (*CLASSES, "stork"))
    assert dog < heron < cat
    assert heron == unknown


def test_few_labels_of_a_class_are_shrunk_to_the_average():
    signals, classes, correct, images = labels(2000)
    classes[:3], correct[:3] = 2, False
    calibrator = fit(signals, classes, correct, images).calibrator
    assert -2 < calibrator.offsets["heron"] < 0


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_a_gap_that_was_never_seen_has_no_probability(gap):
    signals, classes, correct, images = labels(400)
    calibrator = fit(signals, classes, correct, images).calibrator
    signals[0, 1] = gap
    found = calibrator.probabilities(signals, classes, CLASSES)
    assert np.isnan(found[0])
    assert np.isfinite(found[1:]).all()


def test_a_gap_that_was_seen_often_has_its_own_weight():
    signals, classes, correct, images = labels(3000)
    gone = np.arange(3000) % 5 == 0
    correct[gone & (np.arange(3000) % 10 == 0)] = False
    signals[gone, 1] = np.nan
    calibrator = fit(signals, classes, correct, images).calibrator
    found = calibrator.probabilities(signals, classes, CLASSES)
    assert found[gone].mean() == pytest.approx(correct[gone].mean(), abs=0.03)
    assert calibrator.gap_weights[0] is None


def test_a_few_gaps_neither_count_nor_bend_the_rest():
    signals, classes, correct, images = labels(500)
    signals[: FEWEST_GAPS - 1, 1] = np.nan
    few = fit(signals, classes, correct, images).calibrator
    rest = fit(*(part[FEWEST_GAPS - 1 :] for part in (signals, classes, correct, images))).calibrator
    assert few.gap_weights == (None, None)
    assert few.weights == pytest.approx(rest.weights, rel=0.02)


@pytest.mark.parametrize("verdict", [True, False])
def test_one_verdict_gives_a_constant(verdict):
    signals, classes, _, images = labels(50)
    fitted = fit(signals, classes, np.full(50, verdict), images)
    found = fitted.calibrator.probabilities(signals, classes, CLASSES)
    assert found == pytest.approx(np.full(50, (51 if verdict else 1) / 52))
    assert fitted.held_out == pytest.approx(np.full(50, found[0]), abs=0.05)


def test_too_few_labels_are_refused():
    with pytest.raises(UserError, match="19 reviewed labels are too few to fit; review at least 20"):
        fit(*labels(19))


def test_held_out_means_that_no_label_of_the_image_was_seen():
    """Copies of one label in each image: in-sample they would tell each other's verdict."""
    rng = np.random.default_rng(3)
    images = np.repeat(np.arange(40), 10)
    signals = rng.normal(size=(40, 30))[images]
    correct = (rng.random(40) < 0.5)[images]
    names = tuple(f"s{number}" for number in range(30))
    fitted = fit_calibrator(signals, names, np.zeros(400, np.int64), ("cat",), correct, images, 1)
    seen = fitted.calibrator.probabilities(signals, np.zeros(400, np.int64), ("cat",))
    assert ((seen - correct) ** 2).mean() < 0.1
    assert fitted.brier > 0.25


def plateau(logits):
    return np.where(logits > 0, 0.97, 0.15)


def test_the_monotone_correction_comes_only_where_it_helps():
    data = labels(3000, shape=plateau)
    fitted = fit(*data)
    assert fitted.isotonic
    found = fitted.calibrator.probabilities(data[0], data[1], CLASSES)
    high = found > np.quantile(found, 0.8)
    assert found[high].mean() == pytest.approx(0.97, abs=0.02)
    assert not fit(*labels(900, shape=plateau)).isotonic


def test_the_correction_keeps_the_order_and_makes_no_ties():
    data = labels(3000, shape=plateau)
    calibrator = fit(*data).calibrator
    x, y = np.array(calibrator.knots).T
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    inside = np.linspace(x[0], x[-1], 50)
    assert (np.diff(np.interp(inside, x, y)) > 0).all()


@pytest.mark.parametrize("count", [300, 2000])
def test_json_and_back(count):
    data = labels(count, shape=plateau)
    calibrator = fit(*data).calibrator
    again = Calibrator.from_dict(json.loads(json.dumps(calibrator.to_dict(), allow_nan=False)))
    assert again == calibrator
    assert np.array_equal(
        again.probabilities(data[0], data[1], CLASSES), calibrator.probabilities(data[0], data[1], CLASSES)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1.0]},
        {"deviations": [1.0, 0.0]},
        {"intercept": float("nan")},
        {"offsets": None},
        {"extra": 1},
        {"knots": [[0.1, None]]},
        {"gap_weights": []},
    ],
)
def test_a_damaged_calibrator_is_refused(change):
    values = fit(*labels(100)).calibrator.to_dict()
    with pytest.raises(UserError, match="calibrator is damaged"):
        Calibrator.from_dict(values | change)


def test_probabilities_survive_float32():
    signals, classes, correct, images = labels(100)
    found = fit(signals, classes, correct, images).calibrator.probabilities(signals, classes, CLASSES)
    assert np.array_equal(found, found.astype(np.float32))


def drawn(count, off=0.0):
    rng = np.random.default_rng(0)
    p = rng.random(count)
    return np.clip(p + off, 0, 1), rng.random(count) < p


def test_what_is_calibrated_has_little_error_and_what_is_off_has_its_offset():
    assert reliability(*drawn(20_000), weights=np.ones(20_000)).calibration_error < 0.02
    assert reliability(*drawn(20_000, 0.1), weights=np.ones(20_000)).calibration_error == pytest.approx(0.095, abs=0.01)


def test_brier_is_scikit_learns():
    p, correct = drawn(500)
    weights = np.linspace(1, 5, 500)
    expected = brier_score_loss(correct, p, sample_weight=weights)
    assert reliability(p, correct, weights).brier == pytest.approx(expected)


def test_bins_hold_equally_many():
    found = reliability(*drawn(100), weights=np.ones(100), bins=10)
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
