import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_utils

from schemas.reviews import MOST_RLE_BYTES
from tasks.reviews.masks import looks_like_rle, mask_trouble

MASKS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))
DIGITS = st.lists(st.integers(48, 111), max_size=30).map(bytes)


@given(MASKS)
def test_every_mask_with_a_pixel_is_one(mask):
    counts = mask_utils.encode(np.asfortranarray(mask))["counts"]
    found = mask_trouble(counts, *mask.shape)
    if mask.any():
        assert not found
        assert "draw it in the size of the image" in mask_trouble(counts, mask.shape[0] + 1, mask.shape[1])
    else:
        assert "has no pixel" in found


@given(st.binary(max_size=30) | DIGITS, st.integers(1, 20), st.integers(1, 20))
def test_what_is_let_through_is_safe_with_pycocotools(counts, height, width):
    if mask_trouble(counts, height, width):
        return
    assert mask_utils.decode({"size": [height, width], "counts": counts}).any()


@given(st.lists(st.none() | st.binary(max_size=12) | DIGITS, max_size=5))
def test_the_quick_look_lets_every_mask_through(masks):
    quick = looks_like_rle(pa.chunked_array([pa.array(masks, pa.binary())])).to_pylist()
    assert all(fine for fine, mask in zip(quick, masks, strict=True) if mask is None or not mask_trouble(mask))


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        (b"", "is no compressed COCO RLE; write the counts that pycocotools"),
        (b"\xff\xfe", "is no compressed COCO RLE"),
        (b"5o", "is no compressed COCO RLE"),  # the last number does not end
        (b"5O", "is no compressed COCO RLE"),  # a run of -1 pixels
        (b"oooooooo1", "is no compressed COCO RLE"),  # more pixels than cocoapi can count
        (b"6230>", ""),
        (b"6231>", "is of 31 pixels, its image of 6 x 5; draw it in the size of the image"),
        (b"n0", "has no pixel; leave rle_counts empty"),
        (b"1" * (MOST_RLE_BYTES + 1), "has 1,048,577 bytes; smooth its edge until it has up to 1,048,576"),
    ],
)
def test_what_is_no_mask(counts, problem):
    assert problem in mask_trouble(counts, 5, 6)
    assert bool(problem) == bool(mask_trouble(counts, 5, 6))
