"""The fast SAM against the package's own predictor: bundled weights and samples, each switch alone and all together."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import sam_model_registry

from schemas.campaign import ModelsConfig, SegmenterConfig
from tasks.models.engine.switches import REFERENCE, Engine
from tasks.models.registry import load_segmenter
from tasks.models.runtime import Runtime, choose_runtime
from tasks.models.sam.backend import SamSegmenter
from tests.tasks.models.sam.exact import WantedMasks, decoded, wanted_masks

SAMPLES = Path(__file__).parents[5] / "starter" / "samples"
SWITCHES = ("fused_relpos", "channels_last", "pooled_decoder", "device_masks")
COUNT = 5
BF16_AGREES = 0.98
"""Share of the pixels in masks. bf16 moves a logit by some roundoffs of 2**-8 of its 26, that is by 0.1 a rounding that
counts; edges are a pixel wide and rise by several logits, and masks are tens of pixels wide."""
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
def wanted(package: torch.nn.Module, samples: Pictures) -> list[WantedMasks]:
    return wanted_masks(package, *samples)


def agreement(found, wanted):
    """The smallest share of equal pixels of an image, of the pixels in its masks, which are fewer than the image's."""
    shares = []
    for masks, one in zip(found, wanted, strict=True):
        expected = (one.logits.exact > one.threshold).numpy()
        mine = decoded(masks, *expected.shape[1:])
        shares.append(1 - (mine != expected).sum() / np.maximum(expected.sum(), 1))
    return min(shares)


@pytest.mark.parametrize("name", ENGINES)
def test_masks_are_the_predictor_s(package, samples, wanted, name):
    images, boxes = samples
    found = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "fp32", ENGINES[name]), 3, "key").segment(images, boxes)
    for masks, one in zip(found, wanted, strict=True):
        one.check(masks)
        assert one.sure.mean() > 0.999


def test_bf16_agrees(package, samples, wanted):
    images, boxes = samples
    segmenter = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "bf16"), 3, "key")
    assert agreement(segmenter.segment(images, boxes), wanted) >= BF16_AGREES
    assert segmenter._sam.image_encoder.blocks[0].attn.qkv.weight.dtype == torch.bfloat16


def test_the_same_weights_under_the_same_names(package):
    fast = SamSegmenter(copy.deepcopy(package), Runtime("cpu", "fp32", ENGINES["fused_relpos"]), 3, "key")._sam
    own = package.state_dict()
    assert fast.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in fast.state_dict().items())


@pytest.fixture(scope="module")
def full_size(samples):
    """A ViT-B with random weights, cut where half of the pixels are above; an image, boxes, and what is wanted."""
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]().eval()
    with torch.no_grad():
        for block in sam.image_encoder.blocks:
            block.attn.rel_pos_h.normal_(std=0.1)
            block.attn.rel_pos_w.normal_(std=0.1)
    images, boxes = samples[0][:1], samples[1][:1]
    [wanted] = wanted_masks(sam, images, boxes, wide=False)
    sam.mask_threshold = float(wanted.logits.exact.median())
    return sam, images, boxes, wanted._replace(threshold=sam.mask_threshold)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", *SWITCHES])
def test_a_full_size_vit_b(full_size, name):
    sam, images, boxes, wanted = full_size
    found = SamSegmenter(copy.deepcopy(sam), Runtime("cpu", "fp32", ENGINES[name]), 1, "key").segment(images, boxes)
    assert 0.3 < (wanted.logits.exact > wanted.threshold).double().mean() < 0.7
    wanted.check(found[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_agrees(package, samples, wanted, precision):
    images, boxes = samples
    runtime = choose_runtime(ModelsConfig(device="cuda:0", precision=precision))
    found = SamSegmenter(copy.deepcopy(package), runtime, 3, "key").segment(images, boxes)
    if precision == "bf16":
        assert agreement(found, wanted) >= BF16_AGREES
    else:
        for masks, one in zip(found, wanted, strict=True):
            one.check(masks)


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
def test_nine_hundred_boxes_beside_none(samples, wanted):
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32"))
    images, boxes = samples
    again = np.arange(900) % len(boxes[0])
    none, found = segmenter.segment([images[1], images[0]], [np.zeros((0, 4), np.float32), boxes[0][again]])
    assert len(none.rle_counts) == 0
    one = wanted[0]
    logits, iou = (each._replace(exact=each.exact[again]) for each in (one.logits, one.iou))
    one._replace(logits=logits, iou=iou).check(found)
