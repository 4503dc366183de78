"""The right answers, from ground truth."""

import numpy as np
import pytest

from schemas.errors import UserError
from tasks.evaluate.evaluate import evaluate_campaign
from tasks.simulate.truth import truth_of_campaign


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
    ("change", "words"),
    [
        (lambda document: document.update(images=[{"id": 1, "file_name": "other.png"}]), "shares no image"),
        (lambda document: document.update(categories=[{"id": 1, "name": "owl"}]), "shares no class"),
        (lambda document: [image.update(width=5) for image in document["images"]], "fits none"),
    ],
)
def test_nothing_in_common(campaign, own_truth, change, words):
    with pytest.raises(UserError, match=words):
        truth_of_campaign(campaign, own_truth(change))
