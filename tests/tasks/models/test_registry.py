"""Backends by name, and those that need no model."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as mask_utils

from vouch_labels.schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from vouch_labels.tasks.models.fake import FakeScorer
from vouch_labels.tasks.models.registry import (
    Pass,
    Phrase,
    assemble,
    each_its_own,
    load_detector,
    load_scorer,
    load_segmenter,
)
from vouch_labels.tasks.models.runtime import Runtime

DETECTOR = load_detector(DetectorConfig(backend="fake"), Runtime("cpu", "fp32"))
PHRASES = [Phrase("dog", 0), Phrase("cat", 1), Phrase("wolf", 0, negative=True)]


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_passes_come_together_with_a_column_for_every_phrase() -> None:
    first = Pass(rows([0.5, 0.5, 0.2, 0.4, 0.9, 0.1], [0.5, 0.5, 0.1, 0.1, 0.2, 0.1]), (0, 2))
    second = Pass(rows([0.0, 1.0, 0.5, 0.5, 0.3]), (1,))
    found = assemble([first, second], 3, (200, 100), (200, 100), 0.3)
    np.testing.assert_allclose(found.boxes, [[80, 30, 120, 70], [0, 75, 50, 100]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [[0.9, 0, 0.1], [0, 0.3, 0]])
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_what_lies_in_the_padding_is_clipped() -> None:
    found = assemble([Pass(rows([0.5, 0.5, 1.0, 1.0, 0.9]), (0,))], 1, (200, 200), (200, 50), 0.3)
    np.testing.assert_allclose(found.boxes, [[0, 0, 200, 50]])


@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_said(place: int, value: float) -> None:
    good, bad = rows([0.5, 0.5, 0.2, 0.2, 0.9]), rows([0.5, 0.5, 0.2, 0.2, 0.1])
    bad[0, place] = value
    found = assemble([Pass(good, (0,)), Pass(bad, (1,))], 2, (10, 10), (10, 10), 0.3)
    assert found.boxes.shape == (1, 4)
    assert np.isnan(found.scores).all()


def test_a_batch_is_done_again_one_by_one_only_when_it_must() -> None:
    sizes = []

    def forward(items: Sequence[int]) -> list[list[np.ndarray]]:
        sizes.append(len(items))
        spoilt = 13 in items
        return [[np.array([[np.nan if spoilt else item]], np.float32)] for item in items]

    assert [blocks[0][0, 0] for blocks in each_its_own(forward, [1, 2, 3])] == [1, 2, 3]
    assert sizes == [3]
    found = [blocks[0][0, 0] for blocks in each_its_own(forward, [1, 13, 3])]
    assert (found[0], found[2]) == (1, 3)
    assert np.isnan(found[1])
    assert sizes == [3, 3, 1, 1, 1]


# The segmenter without a model.


def test_bright_squares_are_found_where_they_are() -> None:
    image = np.zeros((64, 100, 3), np.uint8)
    image[16:32, 32:48] = (0, 255, 0)
    image[48:64, 96:100] = 255
    [found] = DETECTOR.detect([image], PHRASES, 0.0)
    assert found.boxes[0].tolist() == [32, 16, 48, 32]
    assert np.array_equal(found.scores, DETECTOR.detect([image.copy()], PHRASES, 0.0)[0].scores)


def test_scores_belong_to_texts() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32] = 255
    [found] = DETECTOR.detect([image], PHRASES, 0.0)
    [turned] = DETECTOR.detect([image], PHRASES[::-1], 0.0)
    assert len(found.boxes) == 4
    np.testing.assert_array_equal(found.scores, turned.scores[:, ::-1])
    assert len(np.unique(found.scores)) == found.scores.size


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)).flatmap(
        lambda shape: arrays(np.uint8, (*shape, 3), elements=st.sampled_from([0, 90, 255]))
    ),
    st.floats(0, 1),
)
def test_any_image_gives_boxes_within_it(image: np.ndarray, least: float) -> None:
    [found] = DETECTOR.detect([image], PHRASES, least)
    assert found.boxes.shape == (len(found.scores), 4)
    assert found.scores.shape[1] == 3
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array([image.shape[1], image.shape[0]] * 2)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.scores.max(axis=1, initial=1) >= np.float32(least)).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_the_detector_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np; from tasks.models.fake import FakeDetector; "
        "FakeDetector().detect([np.zeros((4, 4, 3), np.uint8)], [], 0); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


RUNTIME = Runtime("cpu", "fp32")


def test_texts_have_fixed_places_of_their_own() -> None:
    scorer = FakeScorer(ScorerConfig(backend="fake"), RUNTIME)
    first, again = scorer.embed_texts(["dog", "cat", "dog"]), load_scorer(ScorerConfig(backend="fake"), RUNTIME)
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, again.embed_texts(["dog", "cat", "dog"]))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert scorer.fingerprint == again.fingerprint


def test_nothing_to_embed() -> None:
    scorer = FakeScorer(ScorerConfig(), RUNTIME)
    assert scorer.embed_texts([]).shape == (0, 32)
    assert scorer.embed_crops([]).shape == (0, 32)


def test_near_colours_near_places() -> None:
    scorer = FakeScorer(ScorerConfig(), RUNTIME)
    grey, paler, red = (np.full((20, 30, 3), colour, np.uint8) for colour in (100, 105, (255, 0, 0)))
    one, two, three = scorer.embed_crops([grey, paler, red])
    assert one @ two > one @ three


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda shape: (*shape, 3))), st.booleans())
def test_every_crop_has_a_place(pixels: np.ndarray, turned: bool) -> None:
    scorer = FakeScorer(ScorerConfig(), RUNTIME)
    (place,) = scorer.embed_crops([pixels.transpose(1, 0, 2) if turned else pixels])
    assert np.isfinite(place).all()
    assert abs(np.linalg.norm(place) - 1) < 1e-5


def test_the_scorer_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np; from tasks.models.fake import FakeScorer; "
        "FakeScorer().embed_crops([np.zeros((4, 4, 3), np.uint8)]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
