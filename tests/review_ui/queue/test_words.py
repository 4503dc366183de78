"""Words of signals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from review_ui.queue.words import presence_words, words_of

SURE = {
    "detector_score": 0.91, "detector_margin": 0.6, "runner_up": "van", "relative_area": 0.1, "crowding": 0.0,
    "sam_iou": 0.95, "mask_stability": 0.97, "mask_box_iou": 0.98, "clip_probability": 0.88, "clip_margin": 0.8,
    "clip_other": "truck", "clip_other_probability": 0.08,
}  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "words"),
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
def test_a_signal_has_its_words(signals, words):
    assert words_of(SURE | signals) == words


def test_the_two_strongest_are_named_and_no_more():
    weak = SURE | {"crowding": 0.9, "detector_score": 0.4, "mask_box_iou": 0.1, "sam_iou": 0.75}
    assert words_of(weak) == "the mask fills little of the box: 0.10; another label overlaps it: 0.90"


def test_a_plant_names_the_class_that_it_was_made_from_in_the_place_of_its_own():
    torn = SURE | {"detector_margin": 0.03}
    assert words_of(torn, {"van": "car"}) == "the detector would nearly say car"


@given(st.dictionaries(st.sampled_from(sorted(SURE)), st.sampled_from([None, math.nan]), min_size=1))
def test_what_is_missing_is_no_reason(missing):
    texts = {name: None for name in missing if name in ("runner_up", "clip_other")}
    words = words_of(SURE | missing | texts)
    assert "nan" not in words
    assert "None" not in words


def test_nothing_is_said_of_nothing():
    assert words_of({}) == ""
    assert presence_words("dog", 0.7342) == "CLIP sees dog: 0.73"
