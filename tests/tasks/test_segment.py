"""The segment step: tables, and one bad image among good ones."""

from typing import Any

import numpy as np
import pytest

from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import MASKS
from vouch_labels.tasks.boxes_masks import paired_box_iou
from vouch_labels.tasks.models.fake import FakeSegmenter
from vouch_labels.tasks.models.registry import Masks
from vouch_labels.tasks.segment import Segment

IMAGE = np.zeros((40, 60, 3), dtype=np.uint8)


def boxes_of(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


class Weird(FakeSegmenter):
    """Answers NaN for images that begin with a white pixel."""

    fingerprint = "weird"

    def segment(self, images, boxes):
        found = super().segment(images, boxes)
        for image, masks in zip(images, found, strict=True):
            if image[0, 0, 0] == 255:
                masks.predicted_iou[:] = np.nan
        return found


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_boxes_that_are_not_finite_fail_their_image_alone(odd):
    good, bad = boxes_of((1, 2, 30, 30)), boxes_of((1, 2, odd, 30), (0, 0, 5, 5))
    first, second, third = Segment(FakeSegmenter())([IMAGE] * 3, [good, bad, boxes_of()])
    assert isinstance(first, Masks)
    assert isinstance(third, Masks)
    assert second == Failed(step="segment", reason="a box is not finite")


def test_an_answer_that_is_not_finite_fails_its_image_alone():
    white = np.full_like(IMAGE, 255)
    boxes = boxes_of((1, 2, 30, 30))
    first, second = Segment(Weird())([white, IMAGE], [boxes, boxes])
    assert first == Failed(step="segment", reason="the segmenter's answer is not finite")
    assert isinstance(second, Masks)


def test_the_key_follows_the_segmenter():
    assert Segment(FakeSegmenter()).key == Segment(FakeSegmenter()).key
    assert Segment(FakeSegmenter()).key != Segment(Weird()).key


def test_the_table_holds_a_row_a_label_in_order():
    step = Segment(FakeSegmenter())
    boxes = [boxes_of((1, 2, 30, 30), (5, 5, 50, 39)), boxes_of(), boxes_of((0, 0, 60, 40))]
    masks: list[Any] = step([IMAGE] * 3, boxes)
    ids = [["a", "b"], [], ["c"]]
    table = step.table(zip(ids, boxes, masks, strict=True))
    assert table.schema.equals(MASKS)
    table.validate(full=True)
    assert table["label_id"].to_pylist() == ["a", "b", "c"]
    for place, (prompt, found) in enumerate(
        [(boxes[0][0], masks[0]), (boxes[0][1], masks[0]), (boxes[2][0], masks[2])]
    ):
        row = table.slice(place, 1).to_pylist()[0]
        inside = place % 2 if place < 2 else 0
        assert row["rle_counts"] == found.rle_counts[inside]
        assert row["mask_area"] == found.areas[inside]
        own = np.array([[row["mask_x0"], row["mask_y0"], row["mask_x1"], row["mask_y1"]]], dtype=np.float32)
        np.testing.assert_array_equal(own[0], found.boxes[inside])
        assert row["mask_box_iou"] == pytest.approx(paired_box_iou(prompt[None], own)[0], abs=1e-6)
        assert row["mask_box_iou"] > 0.9


def test_no_labels_give_an_empty_table():
    table = Segment(FakeSegmenter()).table([])
    assert table.schema.equals(MASKS)
    assert table.num_rows == 0
