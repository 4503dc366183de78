"""The segmenter without a model."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from schemas.campaign import SegmenterConfig
from tasks.models.registry import load_segmenter
from tasks.models.runtime import Runtime

HEIGHT, WIDTH = 40, 60
IMAGE = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
numbers = st.floats(-20, 90, width=32)


@pytest.fixture(scope="module")
def segmenter():
    return load_segmenter(SegmenterConfig(backend="fake"), Runtime("cpu", "fp32"))


def boxes_of(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def decoded(counts):
    return mask_utils.decode({"size": [HEIGHT, WIDTH], "counts": counts}).astype(bool)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=4))
@example(rows=[(1.5, 0.0, 1.5, 1.0)])
def test_masks_are_the_ellipses_of_their_boxes(segmenter, rows):
    boxes = boxes_of(*rows)
    masks = segmenter.segment([IMAGE], [boxes])[0]
    assert len(masks.rle_counts) == len(rows)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for place, (x0, y0, x1, y1) in enumerate(boxes.astype(float)):
        mask = decoded(masks.rle_counts[place])
        distance = np.full(mask.shape, np.inf)
        if x1 > x0 and y1 > y0:
            across, down = (2 * x - x0 - x1) / max(x1 - x0, 2e-6), (2 * y - y0 - y1) / max(y1 - y0, 2e-6)
            distance = across**2 + down**2
        assert mask[distance < 1 - 1e-6].all()
        assert not mask[distance > 1 + 1e-6].any()
        assert masks.areas[place] == mask.sum()
        rows_hit, columns_hit = np.nonzero(mask)
        around = (
            [columns_hit.min(), rows_hit.min(), columns_hit.max() + 1, rows_hit.max() + 1] if mask.any() else [0] * 4
        )
        assert masks.boxes[place].tolist() == around
        again = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        assert mask_utils.decode({"size": [HEIGHT, WIDTH], "counts": again}).astype(bool).tolist() == mask.tolist()
    assert ((masks.predicted_iou >= 0) & (masks.predicted_iou <= 1)).all()
    assert ((masks.stability >= 0) & (masks.stability <= 1)).all()


def test_more_boxes_than_a_byte_counts(segmenter):
    masks = segmenter.segment([IMAGE], [boxes_of(*[(3, 4, 50, 30)] * 300)])[0]
    assert masks.areas.tolist() == [decoded(masks.rle_counts[0]).sum()] * 300


def test_equal_boxes_give_equal_masks(segmenter):
    boxes = boxes_of((3, 4, 50, 30), (0, 0, 60, 40))
    first, second = segmenter.segment([IMAGE, IMAGE], [boxes, boxes])
    assert first.rle_counts == second.rle_counts
    assert segmenter.fingerprint == load_segmenter(SegmenterConfig(backend="fake"), Runtime("cpu", "bf16")).fingerprint


def test_no_boxes_give_no_masks(segmenter):
    masks = segmenter.segment([IMAGE], [boxes_of()])[0]
    assert masks.rle_counts == []
    assert masks.boxes.shape == (0, 4)
    assert segmenter.segment([], []) == []
