"""Masks to the box and back.

The texts of questions.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.review_ui.session.samples import mask_in_box, pixels_of, question_of, rle_in_image
from vouch_labels.tasks.boxes_masks import rle_of_crop

side = st.floats(0, 60, allow_nan=False, width=32)


@given(side, side, side, side, st.integers(0, 2**32 - 1))
def test_what_is_in_the_box_comes_back(x0, y0, x1, y1, seed):
    width, height = 57, 41
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    whole = np.random.default_rng(seed).random((height, width)) < 0.5
    left, top, right, bottom = pixels_of(box, width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    shown = mask_in_box(rle_of_crop(whole, 0, 0, height, width), box, width, height)
    inside = np.zeros_like(whole)
    inside[top:bottom, left:right] = whole[top:bottom, left:right]
    if not inside.any():
        assert shown is None
    else:
        assert shown.flags.c_contiguous
        assert rle_in_image(shown, box, width, height) == rle_of_crop(inside, 0, 0, height, width)


def test_a_mask_of_another_size_is_stretched_over_its_box():
    checks = np.array([[True, False], [False, True]])
    rle = rle_in_image(checks, (10.0, 20.0, 50.0, 60.0), 100, 80)
    expected = np.zeros((80, 100), np.bool_)
    expected[20:40, 10:30] = expected[40:60, 30:50] = True
    assert rle == rle_of_crop(expected, 0, 0, 80, 100)


@pytest.mark.parametrize("counts", [b"", b"no counts", b"PPPP", rle_of_crop(np.ones((2, 2), np.bool_), 0, 0, 9, 9)])
def test_what_is_no_mask_of_the_image_is_not_shown(counts):
    assert mask_in_box(counts, (0.0, 0.0, 9.0, 8.0), 9, 8) is None


def test_an_empty_mask_is_none():
    assert rle_in_image(np.zeros((3, 3), np.bool_), (0.0, 0.0, 3.0, 3.0), 9, 9) is None


@pytest.mark.parametrize(
    ("kind", "name", "question"),
    [
        ("label", "cat", "Is this a cat?"),
        ("label", "airplane", "Is this an airplane?"),
        ("possible_miss", "dog", "Is there a dog that no box shows? Draw every one"),
        ("image", "dog", "Find every dog that no box shows"),
        ("image", None, "Find every object that no box shows"),
    ],
)
def test_each_kind_asks_in_its_way(item, kind, name, question):
    assert question_of(item.model_copy(update={"kind": kind, "class_name": name})) == question
