import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UserError, VouchError
from schemas.policy import Group
from schemas.tables import DECISIONS
from tasks.route.certified_rules import decide_by_probability
from tasks.route.router import route
from tasks.statistics.calibrator import Calibrator
from tasks.statistics.sampling import on_fit_side

KEYS = [f"{number}.jpg" for number in range(40)]
CONTENTS = [f"{number:064x}" for number in range(40)]


def tables(sam_iou, classes=None, images=None):
    """Tables of N labels, the Nth on image images[N]."""
    count = len(sam_iou)
    ids = pa.array([f"label-{number}" for number in range(count)], pa.string())
    keys = pa.array([KEYS[image] for image in images or [0] * count], pa.string())
    detect = pa.table({"label_id": ids, "key": keys, "class_name": pa.array(classes or ["dog"] * count, pa.string())})
    segment = pa.table({"label_id": ids, "sam_iou": pa.array(sam_iou, pa.float32())})
    return pa.table({"key": KEYS, "sha256": CONTENTS}), detect, segment, pa.table({"label_id": ids})


def decided(table):
    return list(zip(table["decision"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_decisions_and_stored_probabilities(certified, calibrator):
    values = [0.95, 0.5, None, math.nan, math.inf]
    table = route(*tables(values), certified({"dog": 0.8}))
    assert table.schema.equals(DECISIONS)
    assert decided(table) == [
        ("accept", "p_correct 0.858 >= 0.800"),
        ("review", "p_correct 0.500 < 0.800"),
        *[("review", "p_correct missing")] * 3,
    ]
    expected = calibrator.probabilities(np.float32([[0.95], [0.5]]), np.zeros(2, np.int64), ("dog",))
    assert table["p_correct"].to_pylist() == [*expected.tolist(), None, None, None]
    assert table["policy"].to_pylist() == ["certified-1-test"] * 5


def test_a_threshold_is_met_by_its_own_label_and_by_no_lesser(certified, calibrator):
    values = np.linspace(0, 1, 200, dtype=np.float32)
    found = calibrator.probabilities(values[:, None], np.zeros(200, np.int64), ("dog",))
    for least in found[::20]:
        table = route(*tables(values.tolist()), certified({"dog": float(least)}))
        accepted = np.array(table["decision"].to_pylist()) == "accept"
        np.testing.assert_array_equal(accepted, found >= least)
        np.testing.assert_array_equal(accepted, table["p_correct"].to_numpy() >= np.float32(least))


def test_labels_of_images_kept_for_fitting_go_to_review(certified):
    images = [number // 2 for number in range(80)]
    kept = on_fit_side(CONTENTS, 0.5, 7)[images]
    assert 0 < kept.sum() < 80
    table = route(*tables([0.95] * 80, images=images), certified({"dog": 0.8}, fit_share=0.5, seed=7))
    assert [decision == "review" for decision in table["decision"].to_pylist()] == kept.tolist()
    assert {reason for decision, reason in decided(table) if decision == "review"} == {
        "image kept for fitting the calibrator"
    }
    assert table["p_correct"].null_count == 0


def test_groups_without_a_threshold_and_their_order(certified):
    classes = ["cat", "dog", "cat", "dog"]
    table = route(*tables([0.95, 0.95, 0.1, 0.1], classes), certified({"dog": 0.8, "cat": None}))
    assert decided(table) == [
        ("review", "no certified threshold for this class"),
        ("accept", "p_correct 0.858 >= 0.800"),
        ("review", "no certified threshold for this class"),
        ("review", "p_correct 0.167 < 0.800"),
    ]


def test_offsets_go_by_class_names(certified, calibrator):
    values = Calibrator.from_dict(calibrator.to_dict() | {"offsets": {"cat": -20.0, "dog": 20.0}}).to_dict()
    table = route(*tables([0.5, 0.5], ["dog", "cat"]), certified({"cat": 0.5, "dog": 0.5}, calibrator=values))
    assert table["decision"].to_pylist() == ["accept", "review"]


def test_a_gap_that_was_fitted_has_a_probability(certified, calibrator):
    values = calibrator.to_dict() | {"gap_weights": (3.0,)}
    table = route(*tables([None]), certified({"dog": 0.8}, calibrator=values))
    assert decided(table) == [("accept", "p_correct 0.952 >= 0.800")]


def test_no_labels(certified):
    table = route(*tables([]), certified({"dog": 0.8}, fit_share=0.5))
    assert table.num_rows == 0
    assert table.schema.equals(DECISIONS)


def test_a_label_without_its_image_is_refused(certified):
    images, *rest = tables([0.9])
    with pytest.raises(VouchError, match="do not belong together"):
        route(images.slice(1), *rest, certified({"dog": 0.8}, fit_share=0.5))


def test_a_signal_that_labels_do_not_have_is_refused(certified, calibrator):
    values = calibrator.to_dict() | {"signals": ("luck",)}
    with pytest.raises(UserError, match="asks for the signal 'luck'"):
        route(*tables([0.9]), certified({"dog": 0.8}, calibrator=values))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30),
    st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.001, 0.912, 1.0])),
)
def test_figures_say_what_was_decided(values, least):
    accepted, reasons = decide_by_probability(
        Group(name="g", classes=("dog",), p_correct=least), np.array(values), np.zeros(len(values), np.bool_)
    )
    for value, yes, reason in zip(values, accepted.tolist(), reasons.to_pylist(), strict=True):
        assert yes == (value >= least)
        _, shown, sign, threshold = reason.split()
        assert sign == (">=" if yes else "<")
        assert (float(shown) >= float(threshold)) == yes
        assert len(threshold.partition(".")[2]) >= 3
