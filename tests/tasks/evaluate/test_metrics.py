"""Which labels are on which objects; sweeps, risk and coverage, reliability, average precision."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vouch_labels.tasks.evaluate.average_precision import AveragePrecisionMeter
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
from vouch_labels.tasks.matching import (
    CORRECT,
    IGNORED,
    NOT_MATCHED,
    WRONG,
    match_labels,
    match_the_rest,
    overlaps,
    ranking,
)

signals = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1, 1, width=32) | st.just(np.nan))
NAMES = ("a", "b", "c")
BOX, NEAR, FAR = [0, 0, 20, 20], [0, 0, 20, 16], [40, 40, 60, 60]


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


# Average precision, image by image: the figures of pycocotools called plainly on everything at once.


def measured(world, kind, names=NAMES):
    meter = AveragePrecisionMeter(kind, len(names))
    for image, (labels, objects) in enumerate(zip(world.labels, world.objects, strict=True)):
        meter.add(image, labels, objects)
    return meter.result(names)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_pycocotools_called_plainly(make_world, plainly, kind, seed):
    # More images than are handed over at once.
    world = make_world(seed, images=70)
    found, plain = measured(world, kind), plainly(world, kind)
    expected = (plain.stats[0], plain.stats[1], plain.stats[2], plain.stats[8])
    assert (found.map, found.ap50, found.ap75, found.ar100) == pytest.approx(expected, abs=1e-12)
    assert 0.05 < found.map < 0.95
    precision = plain.eval["precision"][:, :, :, 0, -1]
    for place, name in enumerate(NAMES):
        assert found.classes[name].ap == pytest.approx(precision[:, :, place].mean(), abs=1e-12)
        np.testing.assert_allclose(found.classes[name].precision_at_recall, precision[0, :, place], atol=1e-12)
        assert found.classes[name].recall50 == pytest.approx(plain.eval["recall"][0, place, 0, -1], abs=1e-12)


def test_as_pycocotools_with_more_labels_than_it_looks_at(make_world, make_labels, plainly):
    world = make_world(3, images=2)
    crowded = [[x, y, x + 9, y + 9] for x in range(0, 50, 4) for y in range(0, 50, 4)]
    world.labels[0] = make_labels(crowded, np.zeros(len(crowded)), np.linspace(0.1, 0.9, len(crowded)))
    assert len(crowded) > 100
    assert measured(world, "bbox").map == pytest.approx(plainly(world, "bbox").stats[0], abs=1e-12)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_perfect_labels_have_average_precision_one(make_world, make_labels, seed):
    world = make_world(seed, images=4)
    for image, objects in enumerate(world.objects):
        real = ~objects.crowd
        corners = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], axis=1)[real]
        world.labels[image] = make_labels(corners, objects.class_index[real], np.linspace(0.2, 0.9, real.sum()))
    for kind in ("bbox", "segm"):
        found = measured(world, kind)
        there = [one for one in found.classes.values() if one.objects]
        assert all((one.ap, one.ap50, one.recall50) == pytest.approx((1, 1, 1)) for one in there)
        assert found.map == (pytest.approx(1) if there else None)


def test_without_labels_and_without_objects(make_world, make_labels, make_objects):
    world = make_world(5)
    nothing = world._replace(labels=[make_labels([], [], [])] * len(world.labels))
    assert (measured(nothing, "bbox").map, measured(nothing, "bbox").ar100) == (0, 0)
    empty = world._replace(objects=[make_objects([], [])] * len(world.objects))
    found = measured(empty, "bbox")
    assert (found.map, found.classes["a"].ap, found.classes["a"].precision_at_recall) == (None, None, ())
    assert AveragePrecisionMeter("segm", 3).result(NAMES).map is None


def test_a_class_without_objects_does_not_count(make_world):
    world = make_world(6, classes=2)
    assert measured(world, "bbox").map == measured(world, "bbox", NAMES[:2]).map


# Which labels are on which objects.


def matched(labels, objects, signal="detector_score"):
    order = ranking(labels.signals[signal], labels.signals["detector_score"])
    return match_labels(overlaps(labels, objects), labels.class_index, objects.class_index, objects.crowd, order)


def test_the_better_label_gets_the_object_and_the_other_is_a_duplicate(make_labels, make_objects):
    objects = make_objects([BOX], [0])
    labels = make_labels([BOX, NEAR, FAR], [0, 0, 0], [0.5, 0.9, 0.8])
    found = matched(labels, objects)
    assert found.object.tolist() == [NOT_MATCHED, 0, NOT_MATCHED]
    assert found.outcome.tolist() == [WRONG, CORRECT, WRONG]


def test_the_order_is_that_of_the_signal(make_labels, make_objects):
    labels = make_labels([BOX, NEAR], [0, 0], [0.5, 0.9], other=[0.9, np.nan])
    assert matched(labels, make_objects([BOX], [0]), "other").outcome.tolist() == [CORRECT, WRONG]


def test_another_class_is_wrong_and_told_by_the_second_round(make_labels, make_objects):
    objects = make_objects([BOX, FAR], [0, 1])
    labels = make_labels([BOX, NEAR, FAR], [1, 0, 0], [0.9, 0.8, 0.7])
    found = matched(labels, objects)
    assert found.object.tolist() == [NOT_MATCHED, 0, NOT_MATCHED]
    rest = match_the_rest(found, overlaps(labels, objects), objects.crowd, np.arange(3))
    assert rest.tolist() == [NOT_MATCHED, 0, 1]


def test_a_crowd_excuses_its_own_class_alone_and_any_number(make_labels, make_objects):
    objects = make_objects([[0, 0, 40, 40]], [0], [True])
    labels = make_labels([[0, 0, 8, 8], [10, 10, 20, 20], [0, 0, 8, 8], FAR], [0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6])
    assert matched(labels, objects).outcome.tolist() == [IGNORED, IGNORED, WRONG, WRONG]


def test_an_overlap_of_exactly_one_half_counts(make_labels, make_objects):
    objects = make_objects([[0, 0, 20, 20]], [0])
    assert matched(make_labels([[0, 0, 20, 10]], [0], [0.9]), objects).outcome.tolist() == [CORRECT]
    assert matched(make_labels([[0, 0, 20, 9]], [0], [0.9]), objects).outcome.tolist() == [WRONG]


def test_boxes_turned_inside_out_are_on_nothing(make_labels, make_objects):
    labels = make_labels([[20, 20, 0, 0]], [0], [0.9])
    crowd = make_objects([BOX, BOX], [0, 0], [True, False])
    assert matched(labels, crowd).outcome.tolist() == [WRONG]


def test_missing_signals_rank_last_and_equal_ones_by_score():
    signal = np.array([0.5, np.nan, 0.5, 0.9, np.nan], np.float32)
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32)
    assert ranking(signal, score).tolist() == [3, 2, 0, 4, 1]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_as_pycocotools_matches(make_world, plainly, seed):
    world = make_world(seed, images=5)
    if not sum(len(labels.class_index) for labels in world.labels):
        return
    counts = {CORRECT: 0, WRONG: 0, IGNORED: 0}
    for labels, objects in zip(world.labels, world.objects, strict=True):
        outcome = matched(labels, objects).outcome
        for value in counts:
            counts[value] += int((outcome == value).sum())
    run = plainly(world, "bbox")
    # The first area range is all areas; the first threshold is 0.5.
    entries = [entry for entry in run.evalImgs if entry is not None and entry["aRng"] == run.params.areaRng[0]]
    ignored = sum(int(entry["dtIgnore"][0].sum()) for entry in entries)
    correct = sum(int(((entry["dtMatches"][0] > 0) & ~entry["dtIgnore"][0].astype(bool)).sum()) for entry in entries)
    labels = sum(len(entry["dtScores"]) for entry in entries)
    assert counts == {CORRECT: correct, IGNORED: ignored, WRONG: labels - correct - ignored}


@pytest.mark.parametrize(("labels", "objects"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_on_one_side(make_labels, make_objects, labels, objects):
    found = make_labels([BOX] * labels, [0] * labels, [0.5] * labels)
    assert matched(found, make_objects([BOX] * objects, [0] * objects)).outcome.tolist() == [WRONG] * labels
