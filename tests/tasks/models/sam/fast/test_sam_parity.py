"""The fast SAM against the package's own predictor: bundled weights and samples, each switch alone and all together."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils
from segment_anything import SamPredictor, sam_model_registry

from schemas.campaign.models import ModelsConfig, SegmenterConfig
from tasks.models.engine.switches import REFERENCE, Engine
from tasks.models.registry import load_segmenter
from tasks.models.runtime import Runtime, choose_runtime
from tasks.models.sam.backend import SamSegmenter

SAMPLES = Path(__file__).parents[5] / "starter" / "samples"
SWITCHES = ("fused_relpos", "channels_last", "pooled_decoder", "device_masks")
COUNT = 5
ENGINES = {name: Engine(frozenset([name])) for name in SWITCHES} | {"all": Engine(), "reference": REFERENCE}

Pictures = tuple[list[NDArray[np.uint8]], list[NDArray[np.float32]]]


@pytest.fixture(scope="module")
def samples() -> Pictures:
    truth = json.loads((SAMPLES / "ground_truth.json").read_text())
    images, boxes = [], []
    for entry in truth["images"][:COUNT]:
        images.append(np.asarray(Image.open(SAMPLES / entry["file_name"]).convert("RGB")))
        xywh = np.array([row["bbox"] for row in truth["annotations"] if row["image_id"] == entry["id"]], np.float32)
        xyxy = xywh.reshape(-1, 4)
        xyxy[:, 2:] += xyxy[:, :2]
        boxes.append(xyxy)
    return images, boxes


@pytest.fixture(scope="module")
def package() -> torch.nn.Module:
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(segmenter, SamSegmenter)
    return segmenter._sam


@pytest.fixture(scope="module")
def expected(package: torch.nn.Module, samples: Pictures) -> list[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    return predicted(package, *samples)


def predicted(sam, images, boxes):
    """SamPredictor's masks (N, H, W) and estimates (N,) of each image."""
    predictor = SamPredictor(sam)
    found = []
    for image, prompts in zip(images, boxes, strict=True):
        predictor.set_image(image)
        scaled = torch.from_numpy(predictor.transform.apply_boxes(prompts, image.shape[:2]).astype(np.float32))
        masks, iou, _ = predictor.predict_torch(None, None, scaled.to(predictor.device), multimask_output=False)
        found.append((masks[:, 0].cpu().numpy(), iou[:, 0].clamp(0, 1).cpu().numpy()))
    return found


def decoded(masks, shape):
    rles = [{"size": list(shape), "counts": counts} for counts in masks.rle_counts]
    return mask_utils.decode(rles).transpose(2, 0, 1).astype(bool)


def agreement(found, expected, images):
    """The smallest share of equal pixels of an image, of the boxes that its masks span at most."""
    shares = []
    for masks, (wanted, _), image in zip(found, expected, images, strict=True):
        mine = decoded(masks, image.shape[:2])
        shares.append(1 - (mine != wanted).sum() / np.maximum(wanted.sum(), 1))
    return min(shares)


@pytest.mark.parametrize("name", ENGINES)
def test_masks_are_the_predictor_s(package, samples, expected, name):
    images, boxes = samples
    found = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "fp32", ENGINES[name]), 3, "key").segment(images, boxes)
    # Of the pixels inside masks, which are fewer than those of the image.
    assert agreement(found, expected, images) >= 0.999
    for masks, (_, iou) in zip(found, expected, strict=True):
        np.testing.assert_allclose(masks.predicted_iou, iou, atol=1e-4)


def test_bf16_agrees(package, samples, expected):
    images, boxes = samples
    segmenter = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "bf16"), 3, "key")
    assert agreement(segmenter.segment(images, boxes), expected, images) >= 0.995
    assert segmenter._sam.image_encoder.blocks[0].attn.qkv.weight.dtype == torch.bfloat16


def test_the_same_weights_under_the_same_names(package):
    fast = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "fp32", ENGINES["fused_relpos"]), 3, "key")._sam
    own = package.state_dict()
    assert fast.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in fast.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", *SWITCHES])
def test_a_full_size_vit_b(samples, name):
    """Random weights, cut where half of the pixels are above."""
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]().eval()
    with torch.no_grad():
        for block in sam.image_encoder.blocks:
            block.attn.rel_pos_h.normal_(std=0.1)
            block.attn.rel_pos_w.normal_(std=0.1)
    images, boxes = samples[0][:1], samples[1][:1]
    predictor = SamPredictor(sam)
    predictor.set_image(images[0])
    scaled = torch.from_numpy(predictor.transform.apply_boxes(boxes[0], images[0].shape[:2]).astype(np.float32))
    logits, iou, _ = predictor.predict_torch(None, None, scaled, multimask_output=False, return_logits=True)
    sam.mask_threshold = float(logits.median())
    found = SamSegmenter(copy.deepcopy(sam), Runtime("cpu", "fp32", ENGINES[name]), 1, "key").segment(images, boxes)
    wanted = (logits[:, 0] > sam.mask_threshold).numpy()
    assert 0.3 < wanted.mean() < 0.7
    assert (decoded(found[0], images[0].shape[:2]) == wanted).mean() >= 0.999
    np.testing.assert_allclose(found[0].predicted_iou, iou[:, 0].clamp(0, 1).numpy(), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("bf16", 0.995)])
def test_a_gpu_agrees(package, samples, expected, precision, least):
    images, boxes = samples
    runtime = choose_runtime(ModelsConfig(device="cuda:0", precision=precision))
    segmenter = SamSegmenter(copy.deepcopy(package), runtime, 3, "key")
    assert agreement(segmenter.segment(images, boxes), expected, images) >= least


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_waited_for_a_few_times_a_batch(package, samples):
    images, boxes = samples
    segmenter = SamSegmenter(copy.deepcopy(package), Runtime("cuda:0", "fp32"), COUNT, "key")
    segmenter.segment(images, boxes)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        segmenter.segment(images, boxes)
    waits = {event.key: event.count for event in profile.key_averages()}
    # Two copies and one count of changes a call of the decoder, whatever the number of boxes.
    assert waits.get("aten::nonzero", 0) <= 2
    assert waits.get("aten::item", 0) == 0


@pytest.mark.slow
def test_nine_hundred_boxes_beside_none(samples):
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32"))
    images, boxes = samples
    many = np.tile(boxes[0], (900 // len(boxes[0]) + 1, 1))[:900]
    none, found = segmenter.segment([images[1], images[0]], [np.zeros((0, 4), np.float32), many])
    [few] = segmenter.segment([images[0]], [boxes[0]])
    assert len(none.rle_counts) == 0
    shape = images[0].shape[:2]
    expected = decoded(few, shape)[np.arange(900) % len(boxes[0])]
    assert (decoded(found, shape) == expected).mean() >= 0.999
