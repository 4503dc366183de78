"""Sweeps, risk and coverage, reliability.

The confusion matrix.

Precision and recall of labels.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vouch_labels.tasks.evaluate.metrics import (
    BACKGROUND,
    RISK_POINTS,
    ConfusionCounts,
    area_under_risk,
    label_quality,
    risk_coverage,
    round_thresholds,
    signal_curves,
    threshold_sweep,
)
from vouch_labels.tasks.matching import CORRECT, IGNORED, WRONG

signals = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1, 1, width=32) | st.just(np.nan))


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_hand_counted_sweep():
    rows = threshold_sweep(f32(0.9, 0.7, 0.35, 0.1, np.nan), np.array([1, 1, 0, 1, 0], bool), 5, rows=20)
    by_threshold = {row.threshold: row for row in rows}
    # 0.35 as float32 is below the float64 of the same name, and is kept all the same.
    assert (by_threshold[0.35].labels, by_threshold[0.35].precision, by_threshold[0.35].recall) == (3, 2 / 3, 2 / 5)
    assert (by_threshold[0.4].labels, by_threshold[0.4].precision, by_threshold[0.4].share) == (2, 1, 2 / 5)
    assert (rows[0].threshold, rows[0].labels, rows[-1].threshold) == (0.1, 4, 0.9)


@given(values=signals, data=st.data())
def test_every_row_of_a_sweep_is_what_its_threshold_keeps(values, data):
    correct = data.draw(hnp.arrays(np.bool_, len(values)))
    rows = threshold_sweep(values, correct, 100)
    assert (len(rows) > 0) == bool(np.isfinite(values).any())
    for row in rows:
        kept = values >= np.float32(row.threshold)
        assert (row.labels, row.share) == (kept.sum(), kept.sum() / len(values))
        assert row.precision == (correct[kept].mean() if kept.any() else None)
        assert row.recall == (kept & correct).sum() / 100
    if rows:
        assert rows[0].labels == np.isfinite(values).sum()
        assert len(rows) <= 23


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0, 1, 0.05), (0.25, 0.81, 0.05), (-1, 1, 0.1), (0, 40_000, 2000), (0.5, 0.5, None)]
)
def test_thresholds_are_round(low, high, step):
    found = round_thresholds(f32(low, high))
    assert found[0] <= low + 1e-6
    assert found[-1] == pytest.approx(high, abs=step or 1e-6)
    if step is not None:
        assert np.diff(found) == pytest.approx(step)


def test_risk_and_coverage_by_hand():
    curve = risk_coverage(f32(0.9, 0.8, 0.8, 0.1, np.nan), np.array([1, 0, 1, 0, 1], bool))
    assert curve.kept.tolist() == [1, 3, 4]
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve.threshold.tolist() == pytest.approx([0.9, 0.8, 0.1])
    assert area_under_risk(curve) == pytest.approx((0 + 2 * (1 / 3) + 1 / 2) / 4)


@given(labels=st.integers(1, 400), right=st.integers(0, 400))
def test_a_perfect_signal_has_the_least_area(labels, right):
    correct = np.arange(labels) < right
    signal = np.linspace(1, 0, labels, dtype=np.float32)
    best = area_under_risk(risk_coverage(signal, correct))
    worst = area_under_risk(risk_coverage(signal[::-1], correct))
    assert best <= area_under_risk(risk_coverage(np.ones(labels, np.float32), correct)) + 1e-12 <= worst + 2e-12


def test_a_score_that_means_what_it_says():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000).astype(np.float32)
    honest, boasting = (
        signal_curves(scores, (rng.random(20_000) < chance).astype(np.int8), 20_000).reliability
        for chance in (scores, scores**2)
    )
    assert honest.ece < 0.02
    # The mean of s - s^2.
    assert boasting.ece == pytest.approx(1 / 6, abs=0.02)
    assert [one.labels for one in honest.bins] == [20_000 // len(honest.bins)] * len(honest.bins)


@pytest.mark.parametrize("values", [(), (0.5, 1.5), (-0.1, 0.5)])
def test_only_numbers_from_zero_to_one_have_a_reliability(values):
    assert signal_curves(f32(*values), np.ones(len(values), np.int8), 2).reliability is None


def test_labels_on_crowds_are_left_out_and_missing_values_told():
    outcome = np.array([CORRECT, IGNORED, WRONG, WRONG], np.int8)
    found = signal_curves(f32(0.9, 0.95, 0.5, np.nan), outcome, 2)
    assert (found.labels, found.missing) == (3, 1)
    assert found.risk_coverage[0].precision == 1
    assert found.risk_coverage[-1].coverage == pytest.approx(2 / 3)
    assert sum(one.labels for one in found.reliability.bins) == 2


def test_long_curves_are_thinned_and_keep_their_end():
    values = np.random.default_rng(1).random(5000).astype(np.float32)
    found = signal_curves(values, np.ones(5000, np.int8), 5000)
    assert len(found.risk_coverage) == RISK_POINTS
    assert (found.risk_coverage[-1].coverage, found.aurc) == (1, 0)


def test_no_labels_at_all():
    found = signal_curves(f32(), np.zeros(0, np.int8), 3)
    assert (found.sweep, found.risk_coverage, found.aurc, found.reliability) == ((), (), None, None)


def test_a_hand_counted_image():
    counts = ConfusionCounts(2)
    counts.add(
        label_class=np.array([0, 1, 1, 0, 0]),
        object_class=np.array([0, 0, 1, 1]),
        matched=np.array([0, 1, -1, -1, -1]),
        ignored=np.array([False, False, False, True, False]),
        crowd=np.array([False, False, False, True]),
    )
    found = counts.named(["a", "b"])
    assert found.names == ("a", "b", BACKGROUND)
    # a on a; b on a; b and a on nothing; the third object missed; the crowd and what lies on it left out.
    assert found.counts == ((1, 0, 1), (1, 0, 1), (0, 1, 0))


def test_images_without_labels_add_up():
    counts = ConfusionCounts(1)
    none = np.zeros(0, np.int64)
    for _ in range(3):
        counts.add(none, np.array([0, 0]), none, none.astype(bool), np.zeros(2, bool))
    assert counts.named(["a"]).counts == ((0, 0), (6, 0))


def test_hand_counted_labels():
    found = label_quality(
        np.array([0, 0, 0, 1, 1], np.int32),
        np.array([CORRECT, CORRECT, WRONG, IGNORED, CORRECT], np.int8),
        np.array([4, 2, 3]),
        ["a", "b", "c"],
    )
    assert (found.labels, found.correct, found.wrong, found.ignored, found.objects) == (5, 3, 1, 1, 9)
    assert (found.precision, found.recall) == (3 / 4, 3 / 9)
    assert (found.classes["a"].precision, found.classes["a"].recall) == (2 / 3, 1 / 2)
    assert (found.classes["b"].precision, found.classes["b"].recall) == (1, 1 / 2)
    assert (found.classes["c"].precision, found.classes["c"].recall) == (None, 0)


def test_nothing_at_all():
    found = label_quality(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(1, np.int64), ["a"])
    assert (found.labels, found.precision, found.recall) == (0, None, None)
