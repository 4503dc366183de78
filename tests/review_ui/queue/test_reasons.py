"""What plans ask, as items.

Words of signals.
"""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.review_ui.queue.reasons import asked_by, format_presence, format_reasons, reviews_wanted
from vouch_labels.schemas.reviews import PURPOSES, TASKS, VERDICTS, ReviewPlan
from vouch_labels.tasks.reviews.resolve import missed_and_checked, resolve


def make_plan(number, *tasks):
    fields = {
        "number": number, "run": "main", "created": "2026-01-01T00:00:00+00:00", "inputs": {}, "precision": 0.95,
        "confidence": 0.9, "gate": "delivered", "seed": 0, "fit_share": 0.3, "counts": {}, "seconds": 0,
        "tasks_sha256": "",
    }  # fmt: skip
    rows = [
        dict.fromkeys(TASKS.names) | {"place": place, "purpose": "fit", "key": "a.jpg", "seconds": 1.6} | task
        for place, task in enumerate(tasks)
    ]
    return ReviewPlan.model_validate(fields), pa.Table.from_pylist(rows, schema=TASKS)


def make_label(name, **task):
    return {"label_id": name, "class_name": "cat", "x0": 1, "y0": 2, "x1": 3, "y1": 4} | task


def nothing_accepted(label_ids):
    return np.zeros(len(label_ids), np.bool_)


def ask(*plans, classes=("cat", "dog"), reviews=()):
    rows = [dict.fromkeys(VERDICTS.names) | {"simulated": False, "reviewer": "eve"} | row for row in reviews]
    verdicts = pa.Table.from_pylist(rows, schema=VERDICTS)
    return asked_by(plans, resolve(verdicts), missed_and_checked(verdicts), nothing_accepted, classes)


def test_questions_have_ids_kinds_and_an_order_over_all_plans():
    asked = ask(
        make_plan(2, make_label("c")),
        make_plan(
            7, make_label("a"), {"purpose": "image"}, {"purpose": "possible_miss", "class_name": "dog"}, make_label("b")
        ),
    )
    assert list(asked.open) == ["c", "a", "a.jpg\t", "a.jpg\tdog", "b"]
    assert [task.kind for task in asked.open.values()] == ["label", "label", "image", "possible_miss", "label"]
    places = [task.place for task in asked.open.values()]
    assert places == sorted(set(places))
    assert asked.open["c"].box == (1, 2, 3, 4)
    assert asked.open["a.jpg\t"].box is None


def test_a_question_that_several_plans_ask_is_where_it_was_asked_first():
    asked = ask(make_plan(1, make_label("a"), make_label("b")), make_plan(2, make_label("b", purpose="doubtful")))
    assert [(task.item, task.plan, task.purpose) for task in asked.open.values()] == [("a", 1, "fit"), ("b", 1, "fit")]


def test_a_disputed_label_is_open_where_it_is_doubtful():
    reviews = [{"label_id": "a", "verdict": verdict, "reviewer": name} for verdict, name in
            (("correct", "ann"), ("bad_box", "bob"))]  # fmt: skip
    asked = ask(make_plan(1, make_label("a")), make_plan(2, make_label("a", purpose="doubtful")), reviews=reviews)
    assert asked.open["a"].plan == 2
    assert ask(make_plan(1, make_label("a")), reviews=reviews).open == {}


def test_answered_questions_are_asked_but_not_open():
    reviews = [{"label_id": "a", "verdict": "correct"}, {"key": "a.jpg", "verdict": "checked"}]
    asked = ask(make_plan(1, make_label("a"), make_label("b"), {"purpose": "image"}), reviews=reviews)
    assert list(asked.open) == ["b"]
    assert asked.items == {"a", "b", "a.jpg\t"}


def test_a_class_that_the_campaign_does_not_have_is_counted_once_a_question():
    plan = (make_label("a", class_name="van"), make_label("b"), {"purpose": "image"})
    asked = ask(make_plan(1, *plan), make_plan(2, *plan))
    assert asked.items == {"b", "a.jpg\t"}
    assert asked.unknown == {"van": 1}


def test_the_share_asked_twice_is_as_asked_for_and_grows_with_it():
    names = [f"{number:032x}" for number in range(5000)]

    def twice(share, seed=0, purpose="certify"):
        return {name for name in names if reviews_wanted(name, purpose, seed, share) == 2}

    assert twice(0.0) == set()
    assert twice(1.0) == set(names)
    assert len(twice(0.1)) == pytest.approx(500, abs=100)
    assert twice(0.1) < twice(0.3)
    assert twice(0.1, seed=1) != twice(0.1)
    for purpose in PURPOSES:
        assert twice(1.0, purpose=purpose) == (set(names) if purpose in ("fit", "certify", "audit") else set())
    assert twice(0.1, purpose="audit") == twice(0.1), "whatever it is asked for"


SURE = {
    "detector_score": 0.91, "detector_margin": 0.6, "runner_up": "van", "relative_area": 0.1, "crowding": 0.0,
    "sam_iou": 0.95, "mask_stability": 0.97, "mask_box_iou": 0.98, "clip_probability": 0.88, "clip_margin": 0.8,
    "clip_other": "truck", "clip_other_probability": 0.08,
}  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "text"),
    [
        ({}, "the models agree: detector 0.91, CLIP 0.88"),
        (
            {"clip_probability": 0.22, "clip_other_probability": 0.61, "clip_margin": -0.39},
            "CLIP prefers truck: 0.61 against 0.22",
        ),
        (
            {"clip_probability": 0.44, "clip_other_probability": 0.42, "clip_margin": 0.02},
            "CLIP hardly tells it from truck: 0.44 against 0.42",
        ),
        ({"detector_score": 0.34}, "the detector is unsure: 0.34"),
        ({"detector_margin": 0.03}, "the detector would nearly say van"),
        ({"mask_box_iou": 0.41}, "the mask fills little of the box: 0.41"),
        ({"sam_iou": 0.5}, "SAM is unsure of the mask: 0.50"),
        ({"mask_stability": 0.6}, "the mask's edge is vague: 0.60"),
        ({"crowding": 0.8}, "another label overlaps it: 0.80"),
        ({"relative_area": 0.0001}, "it is small: 0.010% of the image"),
    ],
)
def test_a_signal_has_its_text(signals, text):
    assert format_reasons(SURE | signals) == text


def test_the_two_strongest_are_named_and_no_more():
    weak = SURE | {"crowding": 0.9, "detector_score": 0.4, "mask_box_iou": 0.1, "sam_iou": 0.75}
    assert format_reasons(weak) == "the mask fills little of the box: 0.10; another label overlaps it: 0.90"


def test_a_plant_names_the_class_that_it_was_made_from_in_the_place_of_its_own():
    torn = SURE | {"detector_margin": 0.03}
    assert format_reasons(torn, {"van": "car"}) == "the detector would nearly say car"


@given(st.dictionaries(st.sampled_from(sorted(SURE)), st.sampled_from([None, math.nan]), min_size=1))
def test_what_is_missing_is_no_reason(missing):
    texts = {name: None for name in missing if name in ("runner_up", "clip_other")}
    text = format_reasons(SURE | missing | texts)
    assert "nan" not in text
    assert "None" not in text


def test_no_signal_gives_no_reason():
    assert format_reasons({}) == ""
    assert format_presence("dog", 0.7342) == "CLIP sees dog: 0.73"
