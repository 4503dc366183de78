"""Upscaling against the package's own interpolation, whatever the sizes."""

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils
from segment_anything.modeling import Sam
from segment_anything.utils.amg import calculate_stability_score

from tests.float_bounds import U32, assert_within, gamma
from vouch_labels.tasks.models.sam.masks import Upscale, encode_masks

SMALL, PADDED = 16, 64
sides = st.integers(1, 150)


def smooth(seed: int, count: int, sharpness: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, count, 5, 5), generator=generator)
    return torch.nn.functional.interpolate(coarse, (SMALL, SMALL), mode="bicubic")[0] * sharpness


def resized(height: int, width: int) -> tuple[int, int]:
    factor = PADDED / max(height, width)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def by_the_package(small: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """In float64."""
    encoder = SimpleNamespace(image_encoder=SimpleNamespace(img_size=PADDED))
    return Sam.postprocess_masks(encoder, small[:, None].double(), resized(height, width), (height, width))[:, 0]


def bound(small: torch.Tensor) -> float:
    """Of the upscaled logits: two products of at most SMALL terms each, with weights rounded once that sum to 1."""
    return gamma(2 * (SMALL + 1)) * float(small.abs().max())


@settings(deadline=None, max_examples=150)
@given(height=sides, width=sides, seed=st.integers(0, 10_000))
def test_every_part_of_the_upscaled_logits_is_the_package_s(height, width, seed):
    small = smooth(seed, 1, 4.0)
    expected = by_the_package(small, height, width)[0]
    upscale = Upscale(SMALL, PADDED, resized(height, width), (height, width))
    draw = np.random.default_rng(seed)
    left, top = int(draw.integers(width)), int(draw.integers(height))
    right, bottom = int(draw.integers(left, width)) + 1, int(draw.integers(top, height)) + 1
    for box in [(0, 0, width, height), (left, top, right, bottom)]:
        found = upscale.part(small[0], box)
        assert_within(found, expected[box[1] : box[3], box[0] : box[2]], bound(small))


@settings(deadline=None, max_examples=150)
@given(height=sides, width=sides, seed=st.integers(0, 10_000), threshold=st.sampled_from([-6.0, 0.0, 2.0, 6.0, 50.0]))
def test_masks_and_stability_are_those_of_the_whole_image(height, width, seed, threshold):
    small = smooth(seed, 3, 4.0)
    logits = by_the_package(small, height, width)
    upscale = Upscale(SMALL, PADDED, resized(height, width), (height, width))
    masks = encode_masks(small, upscale, threshold, np.array([-1, 0.5, 1.5], dtype=np.float32))

    rles = [{"size": [height, width], "counts": counts} for counts in masks.rle_counts]
    found = mask_utils.decode(rles).transpose(2, 0, 1).astype(bool)
    sure = (logits - threshold).abs() > bound(small)
    np.testing.assert_array_equal(found[sure], (logits > threshold)[sure])
    np.testing.assert_array_equal(masks.areas, found.sum(axis=(1, 2)))
    np.testing.assert_array_equal(masks.boxes[:, 2:] - masks.boxes[:, :2], mask_utils.toBbox(rles)[:, 2:])
    np.testing.assert_array_equal(masks.boxes[:, :2], mask_utils.toBbox(rles)[:, :2])
    assert masks.predicted_iou.tolist() == [0.0, 0.5, 1.0]
    if all(((logits - cut).abs() > bound(small)).all() for cut in (threshold - 1, threshold + 1)):
        expected = torch.nan_to_num(calculate_stability_score(logits, threshold, 1.0), 0.0)
        np.testing.assert_allclose(
            masks.stability, expected, atol=2 * U32
        )  # a quotient of counts, narrowed on both sides


def test_nothing_is_upscaled_where_no_mask_can_be():
    small = torch.full((1, SMALL, SMALL), -9.0)
    small[0, 3:5, 8:10] = 9.0
    left, top, right, bottom = Upscale(SMALL, PADDED, (48, 64), (480, 640)).reach(small > -1)[0].tolist()
    logits = by_the_package(small, 480, 640)[0]
    rows, columns = np.nonzero((logits > -1).numpy())
    assert left <= columns.min() < columns.max() < right
    assert top <= rows.min() < rows.max() < bottom
    assert (right - left) * (bottom - top) < 0.15 * 480 * 640
