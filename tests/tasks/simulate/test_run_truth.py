"""The right answers, from ground truth.

The right answers about one image.
"""

import numpy as np
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.evaluate.evaluate import evaluate_campaign
from vouch_labels.tasks.evaluate.run_truth import (
    BAD_BOX,
    CORRECT,
    NOT_AN_OBJECT,
    UNKNOWN,
    WRONG_CLASS,
    answer_image,
    truth_of_campaign,
)
from vouch_labels.tasks.matching import ImageLabels, ImageObjects, xywh_of


@pytest.fixture
def campaign(tmp_path, make_images, make_campaign, label):
    """Seven labelled images in two shards."""
    make_images(tmp_path / "images", 7)
    campaign = make_campaign(export={"undecided": "include"})
    label(campaign)
    return campaign


def test_its_own_labels_are_right(campaign, own_truth):
    seen: list[int] = []
    labels, truth = truth_of_campaign(campaign, own_truth(), seen.append)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert (truth.correct.all(), truth.known.all(), len(truth.missed_image), truth.left_out) == (True, True, 0, {})
    assert (truth.class_index == labels.class_index).all()
    np.testing.assert_allclose(truth.boxes, labels.boxes, atol=0.01)


def test_agrees_with_evaluate(campaign, own_truth):
    """Half of the objects gone, some of another class, some moved: the same count of right labels."""

    def change(document):
        document["annotations"] = document["annotations"][::2]
        for place, item in enumerate(document["annotations"]):
            item["category_id"] = 1 if place % 3 == 0 else item["category_id"]
            item["bbox"][0] += 3 * (place % 4)

    path = own_truth(change)
    labels, truth = truth_of_campaign(campaign, path)
    evaluated = evaluate_campaign(campaign, path).accepted_and_review
    assert 0 < truth.correct.sum() == evaluated.correct < labels.count
    assert len(truth.missed_image) + (truth.class_index >= 0).sum() == evaluated.objects
    assert np.isnan(truth.boxes[truth.class_index < 0]).all()


def test_what_has_no_truth_is_left_out_and_counted(campaign, own_truth):
    def change(document):
        gone = document["images"].pop(0)["id"]
        document["images"][0]["width"] += 1
        kept = {image["id"] for image in document["images"]} - {gone}
        document["annotations"] = [item for item in document["annotations"] if item["image_id"] in kept]
        document["categories"] = [entry for entry in document["categories"] if entry["name"] != "dog"]

    labels, truth = truth_of_campaign(campaign, own_truth(change))
    assert truth.known.tolist() == [False, False, *[True] * 5]
    dogs = labels.class_index == labels.class_names.index("dog")
    assert (truth.counted == (truth.known[labels.image_index] & ~dogs)).all()
    assert sum(truth.left_out.values()) == (~truth.counted).sum()
    assert set(truth.left_out) == {
        "no truth for the image",
        "image of another size in the truth",
        "class that the truth does not have",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(images=[{"id": 1, "file_name": "other.png"}]), "shares no image"),
        (lambda document: document.update(categories=[{"id": 1, "name": "owl"}]), "shares no class"),
        (lambda document: [image.update(width=5) for image in document["images"]], "fits none"),
    ],
)
def test_nothing_in_common(campaign, own_truth, change, message):
    with pytest.raises(UserError, match=message):
        truth_of_campaign(campaign, own_truth(change))


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
