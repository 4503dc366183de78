"""Outlines of masks: their area is the mask's, and so are the pixels that COCO's own tools fill."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from pycocotools import mask as mask_utils

from vouch_labels.tasks.export.polygons import area, outlines, polygon, polygons

masks = nps.arrays(np.bool_, nps.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def filled(parts, shape):
    return mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects([p.ravel().tolist() for p in parts], *shape)))


@settings(max_examples=200)
@given(mask=masks)
def test_the_area_is_the_masks_and_pycocotools_fills_its_pixels(mask):
    parts = [part.astype(float) for part in polygons(mask)]
    assert sum(area(part) for part in parts) == mask.sum()
    assert area(polygon(mask)) == mask.sum()
    if parts:
        np.testing.assert_array_equal(filled(parts, mask.shape), mask)
        np.testing.assert_array_equal(filled([polygon(mask).astype(float)], mask.shape), mask)


@settings(max_examples=200)
@given(mask=masks)
def test_edges_lie_between_pixels_and_each_is_walked_once(mask):
    found = outlines(mask)
    walked = sum(int(np.abs(np.roll(one.vertices, -1, axis=0) - one.vertices).sum()) for one in found)
    padded = np.pad(mask, 1)
    assert walked == (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    for one in found:
        steps = np.abs(np.roll(one.vertices, -1, axis=0) - one.vertices)
        assert (np.minimum(steps[:, 0], steps[:, 1]) == 0).all()
        assert (steps.sum(axis=1) > 0).all()


def test_a_ring_with_an_island_is_two_parts_and_one_hole():
    mask = np.zeros((7, 7), np.bool_)
    mask[0:7, 0:7] = True
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    found = outlines(mask)
    assert sorted((abs(area(one.vertices)), one.hole) for one in found) == [(1, False), (25, True), (49, False)]
    assert sorted(area(part) for part in polygons(mask)) == [1, 24]


def test_pixels_that_meet_at_a_corner_are_two_parts():
    assert [part.tolist() for part in polygons(np.array([[True, False], [False, True]]))] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]


@pytest.mark.parametrize("shape", [(0, 0), (3, 4)])
def test_an_empty_mask_has_no_polygon(shape):
    assert polygons(np.zeros(shape, np.bool_)) == []
    assert polygon(np.zeros(shape, np.bool_)).shape == (0, 2)
