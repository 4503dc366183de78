import numpy as np
import pytest
from pycocotools import mask as mask_utils

from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.reviews.overlay import HumanLabel

CLASSES = ("cat", "dog")


def label(name="1", decision="review", class_name="cat", box=(10.0, 10.0, 30.0, 30.0)):
    return ExportLabel(name, class_name, box, b"mask", 300, 0.5, 0.75, decision, "p")


def over(verdicts, *labels, key="a.png"):
    (image,) = HumanLabel.of(verdicts, CLASSES).over([ExportImage(key, 80, 60, list(labels))])
    return image


def test_nothing_said_nothing_changed(verdicts):
    given = ExportImage("a.png", 80, 60, [label(), label("2", "accept")])
    answers = verdicts({"label_id": "9", "verdict": "correct"}, {"key": "b.png", "verdict": "checked"})
    assert list(HumanLabel.of(answers, CLASSES).over([given])) == [given]
    assert list(HumanLabel.of(verdicts(), CLASSES).over([given])) == [given]


@pytest.mark.parametrize("decision", ["accept", "review"])
def test_the_human_word_goes_before_the_decision(verdicts, decision):
    given = label(decision=decision)

    def reviewed(**row):
        return over(verdicts({"label_id": "1"} | row), given).labels[0]

    assert reviewed(verdict="correct") == given._replace(reviewed="kept", provenance="human", verdict="correct")
    assert reviewed(verdict="not_an_object").reviewed == "rejected"
    assert reviewed(verdict="wrong_class") == given._replace(reviewed="unclear", verdict="wrong_class")
    assert reviewed(verdict="bad_box") == given._replace(reviewed="unclear", verdict="bad_box")
    assert reviewed(verdict="wrong_class", class_name="zebra").reviewed == "rejected"


def test_corrections(verdicts):
    def reviewed(**row):
        return over(verdicts({"label_id": "1"} | row), label()).labels[0]

    other_class = reviewed(verdict="wrong_class", class_name="dog")
    assert other_class == label()._replace(
        reviewed="corrected", provenance="human", verdict="wrong_class", class_name="dog"
    )
    other_box = reviewed(verdict="bad_box", box=(-5.0, 10.0, 30.0, 99.0))
    assert (other_box.xyxy, other_box.rle_counts, other_box.area) == ((0, 10, 30, 60), None, 0)
    assert (other_box.reviewed, other_box.class_name) == ("corrected", "cat")
    both = reviewed(verdict="wrong_class", class_name="dog", box=(1.0, 2.0, 3.0, 4.0))
    assert (both.class_name, both.xyxy, both.rle_counts) == ("dog", (1, 2, 3, 4), None)
    same = reviewed(verdict="wrong_class", class_name="dog", box=(10.004, 10.0, 30.0, 29.995))
    assert same == other_class


def rle(left=12, width=80, height=60):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[12:20, left : left + 5] = 1
    return mask_utils.encode(mask)["counts"]


def test_masks(verdicts):
    def reviewed(mask=None, **row):
        return over(verdicts({"label_id": "1", "rle_counts": mask or rle()} | row), label()).labels[0]

    expected = label()._replace(provenance="human", rle_counts=rle(), area=40)
    assert reviewed(verdict="correct") == expected._replace(reviewed="kept", verdict="correct")
    corrected = expected._replace(reviewed="corrected", verdict="wrong_class", class_name="dog")
    assert reviewed(verdict="wrong_class", class_name="dog") == corrected
    box = (1.0, 2.0, 30.0, 40.0)
    assert reviewed(verdict="wrong_class", class_name="dog", box=box) == corrected._replace(xyxy=box)
    moved = reviewed(verdict="bad_box", box=box)
    assert moved == expected._replace(reviewed="corrected", verdict="bad_box", xyxy=box)
    assert reviewed(verdict="not_an_object").rle_counts == b"mask"


@pytest.mark.parametrize("mask", [rle(width=81), b"what", b"oooooooo1", b"n0"])
def test_masks_of_other_images_are_passed_over(verdicts, mask):
    kept, moved = (
        over(verdicts({"label_id": "1", "rle_counts": mask} | row), label()).labels[0]
        for row in ({"verdict": "correct"}, {"verdict": "bad_box", "box": (1.0, 2.0, 3.0, 4.0)})
    )
    assert (kept.rle_counts, kept.area, kept.provenance) == (b"mask", 300, "human")
    assert (moved.rle_counts, moved.area) == (None, 0)
    row = {"key": "a.png", "verdict": "missed", "class_name": "dog", "box": (50.0, 5.0, 70.0, 25.0)}
    (added,) = over(verdicts(row | {"rle_counts": mask})).labels
    assert (added.reviewed, added.rle_counts, added.area) == ("added", None, 0)


def test_masks_of_missed_objects(verdicts):
    row = {"key": "a.png", "verdict": "missed", "class_name": "dog", "box": (50.0, 5.0, 70.0, 25.0)}
    (bare,) = over(verdicts(row)).labels
    (added,) = over(verdicts(row | {"rle_counts": rle(55)})).labels
    assert (added.rle_counts, added.area, added.label_id) == (rle(55), 40, bare.label_id)


def test_disputed_labels_are_undecided_again(verdicts):
    answers = verdicts(
        {"label_id": "1", "verdict": "correct"}, {"label_id": "1", "verdict": "bad_box", "reviewer": "bob"}
    )
    given = label(decision="accept")
    assert over(answers, given).labels == [given._replace(reviewed="disputed", verdict="disputed")]


def test_simulated_words_are_no_human_ones(verdicts):
    answers = verdicts(
        {"label_id": "1", "verdict": "correct", "simulated": True},
        {"key": "a.png", "verdict": "missed", "class_name": "dog", "box": (50.0, 5.0, 70.0, 25.0), "simulated": True},
    )
    assert [one.provenance for one in over(answers, label()).labels] == ["simulated", "simulated"]


def test_missed_objects_are_added_once(verdicts):
    def missed(*box, class_name="dog", reviewer="ann"):
        return {"key": "a.png", "verdict": "missed", "class_name": class_name, "box": box, "reviewer": reviewer}

    answers = verdicts(
        missed(50.0, 5.0, 90.0, 25.0),
        missed(51.0, 5.0, 90.0, 25.0, reviewer="bob"),
        missed(51.0, 6.0, 90.0, 25.0),
        missed(50.0, 11.0, 90.0, 31.0),
        missed(50.0, 5.0, 90.0, 25.0, class_name="cat"),
        missed(50.0, 5.0, 90.0, 25.0, class_name="zebra"),
        missed(10.0, 10.0, 30.0, 31.0, class_name="cat"),
        {"label_id": "2", "verdict": "not_an_object"},
        missed(50.0, 40.0, 60.0, 50.0, class_name="cat"),
    )
    there, gone = label(decision="accept"), label("2", "accept", box=(50.0, 40.0, 60.0, 50.0))
    image = over(answers, there, gone)
    added = image.labels[2:]
    assert [(one.class_name, one.xyxy) for one in added] == [
        ("dog", (50, 5, 80, 25)),
        ("dog", (50, 11, 80, 31)),
        ("cat", (50, 5, 80, 25)),
        ("cat", (50, 40, 60, 50)),
    ]
    assert {(one.reviewed, one.provenance, one.verdict, one.decision, one.policy) for one in added} == {
        ("added", "human", "missed", None, None)
    }
    assert len({one.label_id for one in added}) == 4
    assert repr(over(answers, there, gone)) == repr(image)


@pytest.mark.parametrize("decision", ["accept", "review"])
def test_a_correction_makes_no_second_label_of_one_object(verdicts, decision):
    """A box moved onto another's object, and a class corrected to that of the label beside."""
    moved = {"label_id": "1", "verdict": "bad_box", "box": (51.0, 10.0, 70.0, 30.0)}
    renamed = {"label_id": "3", "verdict": "wrong_class", "class_name": "cat"}
    there = (50.0, 10.0, 70.0, 30.0)
    given = label("1", decision), label("2", "accept", box=there), label("3", decision, "dog", there)

    def reviewed(*rows, labels=given):
        return [one.reviewed for one in over(verdicts(*rows), *labels).labels]

    # Beside one that nobody looked at the person's box stays, beside one that people called correct that one.
    assert reviewed(moved) == ["corrected", "duplicate", ""]
    assert reviewed(moved, {"label_id": "2", "verdict": "correct"}) == ["duplicate", "kept", ""]
    assert reviewed(moved, renamed) == ["corrected", "duplicate", "duplicate"]
    assert reviewed(moved, {"label_id": "2", "verdict": "not_an_object"}) == ["corrected", "rejected", ""]
    # A label that waits for review is no plain one, and another class is another object.
    assert reviewed(moved, labels=(given[0], given[2], label("2", "review", box=there))) == ["corrected", "", ""]
    # What the models found side by side stays.
    beside = label("4", "accept", box=(52.0, 10.0, 72.0, 30.0))
    assert reviewed({"label_id": "1", "verdict": "correct"}, labels=(*given[:2], beside)) == ["kept", "", ""]


def test_what_was_checked(verdicts):
    answers = verdicts(
        {"key": "a.png", "verdict": "checked", "class_name": "cat"},
        {"key": "b.png", "verdict": "checked"},
        {"key": "b.png", "verdict": "checked", "class_name": "cat", "reviewer": "bob"},
        {"key": "c.png", "verdict": "checked", "class_name": "zebra"},
    )
    assert [over(answers, key=f"{name}.png").checked for name in "abcd"] == [{"cat"}, {"cat", "dog"}, set(), set()]
