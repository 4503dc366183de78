"""The right answers about one image."""

import numpy as np
import pytest

from tasks.evaluate.arrays import ImageLabels, ImageObjects, xywh_of
from tasks.simulate.answers import BAD_BOX, CORRECT, NOT_AN_OBJECT, UNKNOWN, WRONG_CLASS, answer_image


def labels_of(*rows: tuple[int, tuple[float, ...], float]) -> ImageLabels:
    """Class, box, score of each."""
    return ImageLabels(
        class_index=np.array([row[0] for row in rows], np.int64),
        xyxy=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        accepted=np.zeros(len(rows), bool),
        signals={"detector_score": np.array([row[2] for row in rows], np.float32)},
    )


def objects_of(*rows: tuple[int, tuple[float, ...]], crowd: tuple[int, ...] = ()) -> ImageObjects:
    """Class and box of each."""
    return ImageObjects(
        class_index=np.array([row[0] for row in rows], np.int64),
        xywh=xywh_of(np.array([row[1] for row in rows], np.float32)),
        crowd=np.isin(np.arange(len(rows)), crowd),
    )


CAT, DOG = (10, 10, 30, 30), (50, 50, 70, 70)


@pytest.mark.parametrize(
    ("label", "verdict"),
    [
        ((0, (11, 11, 31, 31), 0.9), CORRECT),
        ((1, (11, 11, 31, 31), 0.9), WRONG_CLASS),
        ((0, (20, 10, 40, 30), 0.9), BAD_BOX),
        ((1, (20, 10, 40, 30), 0.9), NOT_AN_OBJECT),
        ((0, (80, 80, 90, 90), 0.9), NOT_AN_OBJECT),
        ((0, (28, 28, 48, 48), 0.9), NOT_AN_OBJECT),
    ],
)
def test_each_answer(label, verdict):
    answer = answer_image(labels_of(label), objects_of((0, CAT)))
    assert answer.verdict.tolist() == [verdict]
    assert answer.object.tolist() == ([-1] if verdict == NOT_AN_OBJECT else [0])
    assert answer.missed.tolist() == ([0] if verdict == NOT_AN_OBJECT else [])


def test_of_two_boxes_on_one_object_the_better_score_is_right():
    """Also when the other one fits better."""
    answer = answer_image(labels_of((0, CAT, 0.5), (0, (12, 12, 32, 32), 0.8)), objects_of((0, CAT)))
    assert answer.verdict.tolist() == [NOT_AN_OBJECT, CORRECT]


def test_an_object_is_mended_to_once():
    """Two bad boxes of one object, and one of another class on an object that a right label has."""
    rows = ((0, (20, 10, 40, 30), 0.9), (0, (0, 10, 20, 30), 0.8), (1, DOG, 0.9), (0, DOG, 0.7))
    answer = answer_image(labels_of(*rows), objects_of((0, CAT), (1, DOG)))
    assert answer.verdict.tolist() == [BAD_BOX, NOT_AN_OBJECT, CORRECT, NOT_AN_OBJECT]


def test_crowds_answer_nothing_and_are_not_missed():
    objects = objects_of((0, (0, 0, 60, 60)), (1, DOG), crowd=(0,))
    answer = answer_image(labels_of((0, CAT, 0.9), (1, CAT, 0.9)), objects)
    assert answer.verdict.tolist() == [UNKNOWN, NOT_AN_OBJECT]
    assert answer.missed.tolist() == [1]


def test_an_image_without_labels_or_without_objects():
    assert answer_image(labels_of(), objects_of((0, CAT))).missed.tolist() == [0]
    assert answer_image(labels_of((0, CAT, 0.4)), objects_of()).verdict.tolist() == [NOT_AN_OBJECT]
