"""Crops resized by torch against open_clip's own transform."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.campaign.models import ScorerConfig
from tasks.models.engine.switches import REFERENCE, Engine
from tasks.models.open_clip import OpenClipScorer
from tasks.models.open_clip_crops import fits_device, resize_on_device
from tasks.models.registry import load_scorer
from tasks.models.runtime import Runtime

SAMPLES = Path(__file__).parents[3] / "starter" / "samples"


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    names = [entry["file_name"] for entry in json.loads((SAMPLES / "ground_truth.json").read_text())["images"][:4]]
    images = [np.asarray(Image.open(SAMPLES / name).convert("RGB")) for name in names]
    spans = [(0, 0, 64, 64), (3, 5, 40, 200), (10, 20, 220, 31), (50, 50, 51, 51), (0, 0, 250, 250), (7, 9, 72, 74)]
    return [image[top:bottom, left:right] for image in images for top, left, bottom, right in spans]


def test_pixels_are_within_two_levels_and_similarities_near(crops):
    scorer = load_scorer(ScorerConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(scorer, OpenClipScorer)
    expected = torch.from_numpy(np.stack([scorer._fit(crop) for crop in crops])).permute(0, 3, 1, 2).float()
    found = resize_on_device(crops, 64, "cpu")
    assert (found - expected).abs().max() <= 2
    assert (found - expected).abs().mean() < 0.1
    vectors = [np.stack(scorer._encode(pixels)) for pixels in (found, expected)]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.9995


def test_a_cpu_keeps_pillow(crops):
    scorers = [load_scorer(ScorerConfig(), Runtime("cpu", "fp32", engine)) for engine in (Engine(), REFERENCE)]
    assert scorers[0].fingerprint == scorers[1].fingerprint
    assert not scorers[0]._on_device


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({}, True), ({"size": (64, 64)}, True), ({"size": (64, 32)}, False), ({"interpolation": "bilinear"}, False)],
)
def test_only_the_usual_preprocessing_is_done_on_a_gpu(changes, fits):
    from open_clip.transform import PreprocessCfg

    said = PreprocessCfg(**({"size": 64} | changes))
    assert fits_device(said, Runtime("cuda:0", "fp32")) == fits
    assert not fits_device(said, Runtime("cuda:0", "fp32", REFERENCE))
    assert not fits_device(said, Runtime("cpu", "fp32"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_as_a_cpu(crops):
    on_gpu, on_cpu = (load_scorer(ScorerConfig(), Runtime(device, "fp32")) for device in ("cuda:0", "cpu"))
    assert (on_gpu.embed_crops(crops) * on_cpu.embed_crops(crops)).sum(axis=1).min() > 0.9995
    assert on_gpu.fingerprint != on_cpu.fingerprint
