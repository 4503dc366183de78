"""Boxes: IoU against a count of pixels, and its laws."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.geometry import box_area, box_iou, clip_boxes, paired_box_iou

SIDE = 24
whole = st.integers(0, SIDE)
sound = st.tuples(whole, whole, whole, whole).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)
box_lists = st.lists(sound, max_size=5).map(lambda rows: np.array(rows, dtype=np.float32).reshape(-1, 4))
any_boxes = hnp.arrays(np.float32, (4, 4), elements=st.floats(-1e6, 1e6, width=32))


def drawn(box):
    canvas = np.zeros((SIDE, SIDE), dtype=bool)
    x0, y0, x1, y1 = box.astype(int)
    canvas[y0:y1, x0:x1] = True
    return canvas


@settings(deadline=None)
@given(first=box_lists, second=box_lists)
def test_iou_is_that_of_the_pixels(first, second):
    found = box_iou(first, second)
    assert found.shape == (len(first), len(second))
    for i, one in enumerate(first):
        assert box_area(first)[i] == drawn(one).sum()
        for j, other in enumerate(second):
            union = (drawn(one) | drawn(other)).sum()
            common = (drawn(one) & drawn(other)).sum()
            assert found[i, j] == (common / union if union else 0)


@settings(deadline=None)
@given(first=any_boxes, second=any_boxes)
def test_iou_is_symmetric_and_paired_iou_is_its_diagonal(first, second):
    found = box_iou(first, second)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(found, box_iou(second, first).T)
    np.testing.assert_array_equal(paired_box_iou(first, second), np.diagonal(found))


@settings(deadline=None)
@given(boxes=any_boxes, width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_clipped_boxes_lie_in_the_image(boxes, width, height):
    found = clip_boxes(boxes, width, height)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert (found[:, [0, 2]] <= width).all()
    assert (found[:, [1, 3]] <= height).all()
    np.testing.assert_array_equal(clip_boxes(found, width, height), found)


def test_no_boxes_have_no_iou():
    none = np.zeros((0, 4), dtype=np.float32)
    assert box_iou(none, none).shape == (0, 0)
    assert paired_box_iou(none, none).shape == (0,)
    assert box_area(none).shape == (0,)
