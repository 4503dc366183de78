"""SAM's backend against the package's own predictor, on random weights of the real classes."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from tests.tasks.models.sam.exact import decoded, wanted_masks
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.models.runtime import REFERENCE, Engine, Runtime
from vouch_labels.tasks.models.sam import backend
from vouch_labels.tasks.models.sam import masks as encoding
from vouch_labels.tasks.models.sam.backend import SamSegmenter
from vouch_labels.tasks.models.sam.build import build_sam
from vouch_labels.tasks.models.sam.masks import Upscale

CPU = Runtime("cpu", "fp32")
TINY = {
    "image_encoder": {
        "img_size": 128,
        "patch_size": 16,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "out_chans": 32,
        "use_rel_pos": True,
        "window_size": 3,
        "global_attn_indexes": [1],
    },
    "prompt_encoder": {
        "embed_dim": 32,
        "image_embedding_size": [8, 8],
        "input_image_size": [128, 128],
        "mask_in_chans": 4,
    },
    "mask_decoder": {
        "transformer_dim": 32,
        "iou_head_hidden_dim": 16,
        "transformer": {"depth": 2, "embedding_dim": 32, "num_heads": 2, "mlp_dim": 64},
    },
}


@pytest.fixture
def architecture(tmp_path: Path) -> str:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return str(path)


@pytest.fixture
def sam(architecture: str) -> torch.nn.Module:
    return lively(build_sam(architecture))


def lively(sam: Any) -> Any:
    """Random weights whose masks depend on the image and the box, cut at the median logit."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if parameter.dim() > 1:
                gain = 2 if "embed" in name or "token" in name else 3 / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain)
            elif name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        frequencies = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        frequencies.copy_(torch.randn(frequencies.shape, generator=generator))
        sam.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(0.02)
        sam.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(0.7)
    predictor = SamPredictor(sam)
    predictor.set_image(picture(128, 128))
    boxes = torch.from_numpy(some_boxes(128, 128, 5))
    logits, _, _ = predictor.predict_torch(None, None, boxes, multimask_output=False, return_logits=True)
    sam.mask_threshold = float(logits.median())
    return sam


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def some_boxes(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    corners = np.random.default_rng(seed).uniform(0, 1, (count, 2, 2))
    corners.sort(axis=1)
    return (corners * [width, height]).reshape(count, 4).astype(np.float32)


def segmenter(sam: torch.nn.Module, batch_size: int = 2, runtime: Runtime = CPU) -> SamSegmenter:
    """Of a copy, so that the model stays the package's."""
    return SamSegmenter(copy.deepcopy(sam), runtime, batch_size, "key")


SIZES = [(96, 128), (300, 200), (61, 517), (128, 128), (40, 24)]


def test_masks_are_those_of_the_package_s_predictor(sam):
    images = [picture(h, w, i) for i, (h, w) in enumerate(SIZES)]
    boxes = [some_boxes(h, w, 5, i) for i, (h, w) in enumerate(SIZES)]
    found = segmenter(sam, batch_size=3).segment(images, boxes)
    for masks, wanted in zip(found, wanted_masks(sam, images, boxes), strict=True):
        share = (wanted.logits.exact > wanted.threshold).double().mean()
        assert 0.2 < share < 0.8, "weights that leave nothing to compare"
        wanted.check(masks)


def test_areas_and_boxes_are_the_mask_s_own(sam):
    height, width = 90, 140
    masks = segmenter(sam).segment([picture(height, width)], [some_boxes(height, width, 6)])[0]
    for mask, area, box in zip(decoded(masks, height, width), masks.areas, masks.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert area == mask.sum()
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if area else [0, 0, 0, 0]
        assert box.tolist() == expected


def test_images_without_boxes_are_not_encoded(sam, monkeypatch):
    sizes = []
    made = segmenter(sam)
    encoder = made._sam.image_encoder
    encode = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda batch: sizes.append(len(batch)) or encode(batch))
    none = np.zeros((0, 4), dtype=np.float32)
    images = [picture(50, 60), picture(70, 40), picture(30, 30)]
    found = made.segment(images, [none, some_boxes(70, 40, 2), none])
    assert sizes == [1]
    assert [len(masks.rle_counts) for masks in found] == [0, 2, 0]
    assert found[0].boxes.shape == (0, 4)
    assert made.segment([], []) == []
    assert [len(masks.rle_counts) for masks in made.segment(images, [none] * 3)] == [0, 0, 0]
    assert sizes == [1]


@pytest.mark.parametrize("engine", [Engine(), REFERENCE])
def test_chunks_change_nothing(sam, monkeypatch, engine):
    image, boxes, runtime = picture(120, 80), some_boxes(120, 80, 11), Runtime("cpu", "fp32", engine)
    [wanted] = wanted_masks(sam, [image], [boxes])
    wanted.check(segmenter(sam, runtime=runtime).segment([image], [boxes])[0])
    for chunks in (backend.DECODER_BOXES, backend.POOLED_BOXES):
        monkeypatch.setitem(chunks, "cpu", 4)
    monkeypatch.setattr(encoding, "PIXELS_AT_ONCE", 1000)
    monkeypatch.setitem(encoding.PIXELS_ON_DEVICE, "cpu", 1000)
    wanted.check(segmenter(sam, runtime=runtime).segment([image], [boxes])[0])


@pytest.mark.parametrize("engine", [Engine(), REFERENCE])
def test_no_more_pixels_than_stated_are_upscaled_at_once(sam, monkeypatch, engine):
    shapes = []
    part = Upscale.part

    def watched(self, small, xyxy):
        logits = part(self, small, xyxy)
        shapes.append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(Upscale, "part", watched)
    monkeypatch.setattr(encoding, "PIXELS_AT_ONCE", 2000)
    monkeypatch.setitem(encoding.PIXELS_ON_DEVICE, "cpu", 2000)
    segmenter(sam, runtime=Runtime("cpu", "fp32", engine)).segment([picture(200, 100)], [some_boxes(200, 100, 5)])
    assert len(shapes) > 5
    assert max(height * width for height, width in shapes) <= 2000


def test_a_batch_too_large_for_the_device_is_halved(sam, monkeypatch):
    made = segmenter(sam, batch_size=4)
    encode = made._sam.image_encoder.forward

    def small_only(batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("full")
        return encode(batch)

    images, boxes = [picture(40, 40, i) for i in range(3)], [some_boxes(40, 40, 2, i) for i in range(3)]
    expected = segmenter(sam, batch_size=1).segment(images, boxes)
    monkeypatch.setattr(made._sam.image_encoder, "forward", small_only)
    found = made.segment(images, boxes)
    # To the byte: both sides have seen each image alone, in the same shapes.
    assert [masks.rle_counts for masks in found] == [masks.rle_counts for masks in expected]


def test_bf16_keeps_logits_in_fp32_and_agrees(sam):
    image, boxes = picture(128, 128), some_boxes(128, 128, 4)
    exact = segmenter(sam).segment([image], [boxes])[0]
    reduced = segmenter(sam, runtime=Runtime("cpu", "bf16")).segment([image], [boxes])[0]
    assert reduced.predicted_iou.dtype == np.float32
    assert (decoded(exact, 128, 128) == decoded(reduced, 128, 128)).mean() >= 0.9
    assert {parameter.dtype for parameter in sam.parameters()} == {torch.float32}


@pytest.mark.parametrize(("height", "width"), [(1, 1000), (1000, 1), (1, 1)])
def test_the_thinnest_image_is_segmented(sam, height, width):
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    masks = segmenter(sam).segment([picture(height, width)], [box])[0]
    assert decoded(masks, height, width).shape == (1, height, width)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold"),
        ("{", "cannot read"),
        (json.dumps({**TINY, "surprise": 1}), "must hold"),
        (json.dumps({**TINY, "prompt_encoder": {"width": 3}}), "describes no SAM"),
        (json.dumps({**TINY, "mask_decoder": {"transformer_dim": 32}}), "describes no SAM"),
    ],
)
def test_a_file_that_describes_no_sam_is_the_user_s_mistake(tmp_path, text, message):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        build_sam(str(path))


@pytest.mark.parametrize("name", ["vit_g", "missing.json"])
def test_an_unknown_architecture_is_the_user_s_mistake(name):
    with pytest.raises(UserError, match="vit_b, vit_l, vit_h"):
        build_sam(name)


def test_encoder_and_decoder_take_turns_on_the_same_device(sam, monkeypatch):
    """Else a decoder that runs out of memory beside other models would not be tried again alone."""
    from vouch_labels.tasks.models.batching import Batcher
    from vouch_labels.tasks.models.sam import backend

    devices = []
    monkeypatch.setattr(
        backend, "Batcher", lambda *a, **named: devices.append(named.get("device")) or Batcher(*a, **named)
    )
    segmenter(sam)
    assert devices == ["cpu", "cpu"]
