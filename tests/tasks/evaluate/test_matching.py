"""Which labels are on which objects."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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

BOX, NEAR, FAR = [0, 0, 20, 20], [0, 0, 20, 16], [40, 40, 60, 60]


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
