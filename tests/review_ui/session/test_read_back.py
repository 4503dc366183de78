"""What was left in the session becomes verdicts."""

import numpy as np
import pytest

from tests.review_ui.session.conftest import BOX, CLASSES, HEIGHT, LABEL, WIDTH, packed
from vouch_labels.review_ui.session.read_back import DraftError, read_back
from vouch_labels.review_ui.session.samples import mask_in_box, object_id
from vouch_labels.schemas.tables import BOX as SIDES
from vouch_labels.tasks.boxes_masks import rle_of_crop

MOVED = (120.0, 60.0, 230.0, 160.0)
NEW = (300.0, 300.0, 340.0, 360.0)


@pytest.fixture
def answer_of(label, sample):
    """Read a sample back; gives each row without what is empty and without what the item gives."""

    def read(item, *labels, **how):
        rows = read_back(sample(*labels), item, CLASSES, **how)
        assert all(row["key"] == item.key for row in rows)
        assert all(row["label_id"] == (None if row["verdict"] == "missed" else item.label_id) for row in rows)
        return [
            {name: one for name, one in row.items() if one is not None and name not in ("key", "label_id")}
            for row in rows
        ]

    return read


def row(verdict, box=None, **columns):
    return {
        "verdict": verdict,
        **({} if box is None else dict(zip(SIDES, map(pytest.approx, box), strict=True))),
        **columns,
    }


def shown(item):
    return mask_in_box(item.rle, item.box, WIDTH, HEIGHT)


def test_untouched_is_correct(answer_of, label, item, bare):
    assert answer_of(item, label(label_id=LABEL, mask=shown(item))) == [row("correct")]
    assert answer_of(bare, label(label_id=LABEL)) == [row("correct")]


def test_what_shares_lose_is_no_edit(answer_of, label, bare):
    almost = tuple(side + 0.01 for side in BOX)
    assert answer_of(bare, label(almost, label_id=LABEL)) == [row("correct")]


def test_another_class(answer_of, label, bare):
    assert answer_of(bare, label(name="dog", label_id=LABEL)) == [row("wrong_class", class_name="dog")]
    assert answer_of(bare, label(MOVED, "dog", LABEL)) == [row("wrong_class", MOVED, class_name="dog")]


def test_a_moved_box(answer_of, label, bare):
    assert answer_of(bare, label(MOVED, label_id=LABEL)) == [row("bad_box", MOVED)]


def test_a_box_over_the_edge_is_cut(answer_of, label, bare):
    assert answer_of(bare, label((-5.0, 50.0, 700.0, 150.0), label_id=LABEL)) == [row("bad_box", (0, 50, WIDTH, 150))]


def test_a_deleted_label_is_no_object(answer_of, bare):
    assert answer_of(bare) == [row("not_an_object")]


def test_new_boxes_are_missed_objects(answer_of, label, bare, about_image):
    mask = np.ones((60, 40), np.bool_)
    new = label(NEW, "ox", mask=mask)
    missed = row("missed", NEW, class_name="ox", rle_counts=rle_of_crop(mask, 300, 300, HEIGHT, WIDTH))
    assert answer_of(bare, label(label_id=LABEL), new) == [row("correct"), missed]
    assert answer_of(bare, new) == [row("not_an_object"), missed]
    assert answer_of(about_image, new) == [row("checked", class_name="dog"), missed]
    assert answer_of(about_image) == [row("checked", class_name="dog")]


@pytest.mark.parametrize("key", ["bad_box", "wrong_class", "not_an_object"])
def test_an_answer_about_a_label_does_not_check_an_image(sample, about_image, key):
    with pytest.raises(DraftError, match="about the whole image"):
        read_back(sample(), about_image, CLASSES, key)


def test_a_painted_mask_goes_along(answer_of, label, item):
    mask = shown(item).copy()
    mask[:, :20] = True
    rle = rle_of_crop(mask, 100, 50, HEIGHT, WIDTH)
    assert answer_of(item, label(label_id=LABEL, mask=mask)) == [row("correct", rle_counts=rle)]
    assert answer_of(item, label(label_id=LABEL, mask=mask), choice="bad_box") == [row("bad_box", BOX, rle_counts=rle)]
    other = answer_of(item, label(name="dog", label_id=LABEL, mask=mask))
    assert other == [row("wrong_class", class_name="dog", rle_counts=rle)]


def test_a_box_that_only_follows_its_mask_is_good(answer_of, label, item):
    grown = (98.0, 50.0, 201.0, 151.0)
    mask = np.ones((101, 103), np.bool_)
    assert [one["verdict"] for one in answer_of(item, label(grown, label_id=LABEL, mask=mask))] == ["correct"]
    twice = (50.0, 50.0, 250.0, 150.0)
    found = answer_of(item, label(twice, label_id=LABEL, mask=np.ones((100, 200), np.bool_)))
    assert found[0]["verdict"] == "bad_box"
    assert found[0]["rle_counts"]


def test_a_mask_removed_to_move_the_box(answer_of, label, item):
    assert answer_of(item, label(MOVED, label_id=LABEL)) == [row("bad_box", MOVED)]
    with pytest.raises(DraftError, match="mask was removed"):
        answer_of(item, label(label_id=LABEL))


def test_keys_need_no_edit(answer_of, label, bare):
    kept = label(label_id=LABEL)
    assert answer_of(bare, kept, choice="not_an_object") == [row("not_an_object")]
    assert answer_of(bare, kept, choice="bad_box") == [row("bad_box")]
    assert answer_of(bare, kept, choice="wrong_class", class_name="ox") == [row("wrong_class", class_name="ox")]
    assert answer_of(bare, kept, choice="wrong_class") == [row("wrong_class")]


def test_keys_count_beside_edits(answer_of, label, bare):
    assert answer_of(bare, label(MOVED, label_id=LABEL), choice="bad_box") == [row("bad_box", MOVED)]
    both = answer_of(bare, label(MOVED, label_id=LABEL), choice="wrong_class", class_name="ox")
    assert both == [row("wrong_class", MOVED, class_name="ox")]
    assert answer_of(bare, label(name="dog", label_id=LABEL), choice="bad_box") == [
        row("wrong_class", class_name="dog")
    ]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"label": None}, "no class"),
        ({"label": "cow"}, "'cow' is no class"),
        ({"bounding_box": [0.1, 0.1, 0.2]}, "cannot be read"),
        ({"bounding_box": [0.1, 0.1, float("nan"), 0.2]}, "cannot be read"),
        ({"bounding_box": [0.1, 0.1, 0.0, 0.2]}, "empty"),
        ({"bounding_box": [1.1, 0.1, 0.2, 0.2]}, "outside"),
        ({"mask": b"not zipped"}, "the mask of 'ox' cannot be read"),
        ({"mask": packed(np.ones(3))}, "the mask of 'ox' cannot be read"),
        ({"mask": packed(np.ones((2, 2)))[:-9]}, "the mask of 'ox' cannot be read"),
        ({"mask": "/etc/passwd"}, "the mask of 'ox' cannot be read"),
        ({"_id": "abc"}, "cannot be read"),
    ],
)
def test_what_is_no_answer_yet_gets_a_hint_what_to_do(answer_of, label, bare, parts, message):
    with pytest.raises(DraftError, match=message):
        answer_of(bare, label(label_id=LABEL), label(NEW, "ox") | parts)


def test_the_class_it_has_is_no_wrong_class(answer_of, label, bare):
    with pytest.raises(DraftError, match="'cat' already"):
        answer_of(bare, label(label_id=LABEL), choice="wrong_class", class_name="cat")


def test_an_empty_mask_is_reported(answer_of, label, item):
    with pytest.raises(DraftError, match="is empty"):
        answer_of(item, label(label_id=LABEL, mask=np.zeros((9, 9), np.bool_)))


def test_labels_that_cannot_be_read_at_all(bare):
    with pytest.raises(DraftError, match="cannot be read"):
        read_back({"question": {"detections": None}}, bare, CLASSES)


def test_labels_are_known_again_whatever_their_ids():
    assert str(object_id(LABEL)) == LABEL
    assert object_id("missed-0123456789abcdef") == object_id("missed-0123456789abcdef") != object_id("missed-1")
