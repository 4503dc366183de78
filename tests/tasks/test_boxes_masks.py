"""Boxes: IoU against a count of pixels, and its laws.

Run lengths: the same bytes as pycocotools gives.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_utils

from vouch_labels.tasks.boxes_masks import (
    box_area,
    box_iou,
    clip_boxes,
    compress_counts,
    is_rle,
    paired_box_iou,
    rle_area,
    rle_of_crop,
    rle_of_runs,
    rles_of_runs,
    run_lengths,
)

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


crops = hnp.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7)))
margins = st.tuples(*[st.integers(0, 3)] * 4)


@settings(deadline=None)
@given(crop=crops, margins=margins)
def test_a_crop_encodes_as_the_whole_mask(crop, margins):
    left, top, right, bottom = margins
    whole = np.pad(crop, ((top, bottom), (left, right)))
    found = rle_of_crop(crop, left, top, *whole.shape)
    assert found == mask_utils.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"]
    decoded = mask_utils.decode({"size": list(whole.shape), "counts": found})
    np.testing.assert_array_equal(decoded, whole)


def test_an_empty_and_a_full_mask():
    none = np.zeros(0, dtype=np.int64)
    assert rle_of_runs(none, none, 3, 4) == mask_utils.encode(np.zeros((3, 4), dtype=np.uint8, order="F"))["counts"]
    found = rle_of_runs(np.array([0, 3, 6, 9]), np.array([3, 6, 9, 12]), 3, 4)
    assert found == mask_utils.encode(np.ones((3, 4), dtype=np.uint8, order="F"))["counts"]


def test_a_crop_without_extent_is_empty():
    found = rle_of_crop(np.zeros((0, 5), dtype=bool), 1, 2, 6, 7)
    assert mask_utils.area({"size": [6, 7], "counts": found}) == 0


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    runs=st.lists(st.integers(0, 1600), max_size=6),
    other=st.integers(1, 40),
)
def test_counts_are_known_from_others(height, width, runs, other):
    cuts = sorted(min(run, height * width) for run in runs)
    counts = np.diff([0, *cuts, height * width]).tolist()
    compressed = mask_utils.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    assert is_rle(compressed, height, width)
    assert is_rle(compressed, height, other) == (other == width)


@given(crop=crops, margins=margins)
def test_run_lengths_are_those_that_pycocotools_compressed(crop, margins):
    left, top, right, bottom = margins
    whole = np.pad(crop, ((top, bottom), (left, right)))
    runs = run_lengths(mask_utils.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"])
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    np.testing.assert_array_equal(inside.reshape(whole.shape[::-1]).T, whole)


@given(st.binary(max_size=60) | st.lists(st.integers(48, 111), max_size=60).map(bytes))
def test_any_bytes_are_counts_or_not(counts):
    runs = run_lengths(counts)
    if runs is None:
        with pytest.raises(ValueError, match="not compressed"):
            rle_area(counts)
    else:
        assert 0 <= rle_area(counts) <= runs.sum()
        # What is let through is safe with pycocotools, and means the same there.
        size = [int(runs.sum()), 1]
        if 0 < size[0] < 1 << 14:
            rle = {"size": size, "counts": counts}
            assert mask_utils.area(rle) == rle_area(counts)
            assert mask_utils.decode(rle).sum() == rle_area(counts)


def test_sums_beyond_64_bits_are_no_masks():
    longest = b"oooooooooo?"  # 55 bits
    assert not is_rle(longest * 1024 + b"0", 10, 20)
    assert run_lengths(b"oooooo3").tolist() == [2**32 - 1]
    assert run_lengths(b"oooooo4") is None


@pytest.mark.parametrize("counts", [b"", b"abc", b"~~~~", b"0P1", b"\x00\x01", b"0o"])
def test_what_is_no_run_length_encoding(counts):
    assert not is_rle(counts, 10, 20)


@settings(deadline=None)
@given(masks=st.lists(hnp.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 9))), max_size=5), cut=st.data())
def test_many_masks_at_once_encode_as_each_alone(masks, cut):
    starts, ends, runs = [], [], []
    for mask in masks:
        flat = np.pad(mask.T.reshape(-1).astype(np.int8), 1)
        first, last = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
        # A run may come in two parts.
        inside = [pixel for a, b in zip(first, last, strict=True) for pixel in range(a + 1, b)]
        extra = cut.draw(st.lists(st.sampled_from(inside), max_size=2, unique=True)) if inside else []
        starts.append(np.sort([*first, *extra]).astype(np.int64))
        ends.append(np.sort([*last, *extra]).astype(np.int64))
        runs.append(len(starts[-1]))
    none = np.zeros(0, np.int64)
    pixels = np.array([mask.size for mask in masks], np.int64)
    found = rles_of_runs(
        np.concatenate([none, *starts]), np.concatenate([none, *ends]), np.array(runs, np.int64), pixels
    )
    assert found == [mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]


@settings(deadline=None)
@given(masks=st.lists(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=8), max_size=4))
def test_counts_are_compressed_as_pycocotools_does(masks):
    # Up to where pycocotools has room: six bytes a count, the last byte of all for the end, and each holds five bits.
    flat = np.array([count for counts in masks for count in counts], np.int64)
    found = compress_counts(flat, np.array([len(counts) for counts in masks], np.int64))
    wanted = [mask_utils.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)["counts"] for counts in masks]
    assert found == wanted


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8))
def test_counts_of_any_size_are_read_as_they_were_compressed(counts):
    [compressed] = compress_counts(np.array(counts, np.int64), np.array([len(counts)], np.int64))
    assert run_lengths(compressed).tolist() == counts
