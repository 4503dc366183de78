"""Masks: upscaled as the package's own interpolation does, and of many images together as of each alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils
from segment_anything.modeling import Sam
from segment_anything.utils.amg import calculate_stability_score
from torch.nn import functional

from tests.float_bounds import U32, assert_within, gamma
from vouch_labels.tasks.models.registry import join_masks
from vouch_labels.tasks.models.sam import masks as encoding
from vouch_labels.tasks.models.sam.masks import Upscale, encode_batch, encode_masks

SMALL, PADDED = 16, 64
sides = st.integers(1, 150)
sizes = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 3)), min_size=1, max_size=3)


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


# Masks of many images together: as each alone, to the byte.


def upscale_of(height: int, width: int) -> Upscale:
    factor = PADDED / max(height, width)
    resized = max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
    return Upscale(SMALL, PADDED, resized, (height, width))


def smooth_masks(seed: int, count: int) -> torch.Tensor:
    coarse = torch.randn((1, count, 5, 5), generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, (SMALL, SMALL), mode="bicubic")[0] * 4


@settings(deadline=None, max_examples=120)
@given(sizes=sizes, seed=st.integers(0, 9_999), threshold=st.sampled_from([-6.0, 0.0, 2.0, 50.0]), budget=st.data())
def test_each_mask_is_as_it_is_alone(sizes, seed, threshold, budget):
    upscales = [upscale_of(height, width) for height, width, _ in sizes]
    image = [index for index, (_, _, count) in enumerate(sizes) for _ in range(count)]
    small = smooth_masks(seed, max(len(image), 1))[: len(image)]
    iou = torch.linspace(-0.5, 1.5, len(image))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(encoding.PIXELS_ON_DEVICE, "cpu", budget.draw(st.sampled_from([1, 50, 1000, 1 << 20])))
        found = encode_batch(small, iou, upscales, image, threshold)
    assert len(found) == len(image)
    for number, (masks, index) in enumerate(zip(found, image, strict=True)):
        one = slice(number, number + 1)
        wanted = encode_masks(small[one], upscales[index], threshold, iou[one].numpy())
        height, width = upscales[index].size
        # A few columns at a time multiply in another order, so a pixel at the very edge may differ: each of the three
        # is two products of at most SMALL terms, with weights that sum to 1.
        whole = upscales[index].part(small[number], (0, 0, width, height))
        bound = 2 * gamma(2 * (SMALL + 1)) * small[number].abs().max()
        sure = ((whole - threshold).abs() > bound).numpy()
        mine, theirs = (decoded(each, height, width) for each in (masks, wanted))
        np.testing.assert_array_equal(mine[sure], theirs[sure])
        assert masks.rle_counts[0] == mask_utils.encode(np.asfortranarray(mine.astype(np.uint8)))["counts"]
        assert masks.areas[0] == mine.sum()
        rows, columns = np.nonzero(mine)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert masks.boxes[0].tolist() == box
        np.testing.assert_array_equal(masks.predicted_iou, wanted.predicted_iou)  # clamped, not computed
        if all(((whole - cut).abs() > bound).all() for cut in (threshold - 1, threshold + 1)):
            np.testing.assert_allclose(masks.stability, wanted.stability, atol=2 * U32)


def decoded(masks, height, width):
    return mask_utils.decode({"size": [height, width], "counts": masks.rle_counts[0]}).astype(bool)


def test_no_masks_at_all():
    assert encode_batch(torch.zeros(0, SMALL, SMALL), torch.zeros(0), [upscale_of(5, 6)], [], 0.0) == []
    assert len(join_masks([]).areas) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_logit_that_is_not_finite_shows_in_the_estimate(value):
    small = smooth_masks(3, 2)
    small[1, 4, 5] = value
    found = encode_batch(small, torch.tensor([0.5, 0.5]), [upscale_of(30, 40)], [0, 0], 0.0)
    assert found[0].predicted_iou[0] == np.float32(0.5)
    assert np.isnan(found[1].predicted_iou[0])


def test_a_wide_image_is_upscaled_a_few_columns_at_a_time(monkeypatch):
    seen = []
    part = Upscale.part
    monkeypatch.setattr(Upscale, "part", lambda self, small, xyxy: seen.append(xyxy) or part(self, small, xyxy))
    monkeypatch.setitem(encoding.PIXELS_ON_DEVICE, "cpu", 1 << 16)
    upscale = upscale_of(900, 12_000)
    found = encode_batch(torch.ones(1, SMALL, SMALL), torch.ones(1), [upscale], [0], 0.0)
    assert found[0].areas[0] == 900 * 12_000
    assert len(seen) > 100
    assert max((right - left) * (bottom - top) for left, top, right, bottom in seen) <= 1 << 16
