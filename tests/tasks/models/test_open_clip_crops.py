"""Crops resized by torch against open_clip's own transform."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.campaign import ScorerConfig
from tasks.models import open_clip_crops
from tasks.models.engine.switches import REFERENCE, Engine
from tasks.models.open_clip import OpenClipScorer
from tasks.models.open_clip_crops import PIECE, fits_device, pieces_of, resize_on_device, suits_device
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
    found = resize_on_device(crops, 64, "cpu", scorer._fit)
    assert (found - expected).abs().max() <= 2
    assert (found - expected).abs().mean() < 0.1
    vectors = [np.stack(scorer._encode(pixels)) for pixels in (found, expected)]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.9995


def unused(crop):
    raise AssertionError


@pytest.mark.parametrize("threaded", [0, 1 << 30])
def test_many_bytes_of_crops_go_to_the_device_in_pieces(monkeypatch, crops, threaded):
    whole = resize_on_device(crops, 64, "cpu", unused)
    packed = []
    pack = open_clip_crops._pack
    monkeypatch.setattr(open_clip_crops, "PIECE", 100_000)
    monkeypatch.setattr(open_clip_crops, "THREADED", threaded)
    monkeypatch.setattr(
        open_clip_crops, "_pack", lambda *given, **how: packed.append(pack(*given, **how)) or packed[-1]
    )
    assert torch.equal(resize_on_device(crops, 64, "cpu", unused), whole)
    assert len(packed) > 3
    assert max(len(piece) for piece in packed if len(piece) != 250 * 250 * 3) <= 100_000
    assert sum(len(piece) for piece in packed) == sum(crop.size for crop in crops)


def test_a_thousand_crops_of_twelve_megapixels_are_pinned_a_few_at_a_time():
    pieces = list(pieces_of([3 * 4000 * 3000] * 1024, PIECE))
    assert [place for piece in pieces for place in piece] == list(range(1024))
    assert {len(piece) for piece in pieces} == {7, 2}


@given(st.lists(st.integers(1, 100)), st.integers(1, 150))
def test_pieces_are_whole_and_as_large_as_they_may_be(sizes, most):
    pieces = list(pieces_of(sizes, most))
    assert [place for piece in pieces for place in piece] == list(range(len(sizes)))
    held = [sum(sizes[place] for place in piece) for piece in pieces]
    assert all(total <= most or len(piece) == 1 for total, piece in zip(held, pieces, strict=True))
    assert all(total + sizes[piece.stop] > most for total, piece in zip(held, pieces[:-1], strict=False))


@pytest.mark.parametrize("shape", [(3100, 3050), (3050, 4000), (2, 200), (200, 2)])
def test_crops_that_the_device_s_kernel_refuses_or_would_blow_up_stay_on_the_host(crops, shape):
    rows = np.arange(shape[0], dtype=np.uint8)[:, None, None]
    odd = np.broadcast_to(rows, (*shape, 3)) + np.arange(shape[1], dtype=np.uint8)[:, None]
    seen = []

    def fit(crop):
        seen.append(crop)
        return np.full((64, 64, 3), 7, np.uint8)

    found = resize_on_device([crops[0], odd, crops[1]], 64, "cpu", fit)
    assert [crop is odd for crop in seen] == [True]
    assert (found[1] == 7).all()
    assert torch.equal(found[[0, 2]], resize_on_device(crops[:2], 64, "cpu", unused))
    assert torch.equal(resize_on_device([odd], 64, "cpu", fit), found[1:2])


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([32, 64, 224, 336]))
def test_what_the_device_is_given_fits_its_shared_memory(height, width, side):
    rows, columns = open_clip_crops._size(height, width, side)
    scale = max(height / rows, width / columns)
    if suits_device(height, width, side):
        assert 65 * (2 * math.ceil(2 * scale) + 1) * 4 <= 48 << 10
        assert rows * columns <= 64 * side**2
    else:
        assert scale > 40 or max(height, width) > 63 * min(height, width)


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
    crops = [*crops, np.tile(crops[4], (13, 16, 1)), np.tile(crops[4], (1, 70, 1))]
    on_gpu, on_cpu = (load_scorer(ScorerConfig(), Runtime(device, "fp32")) for device in ("cuda:0", "cpu"))
    assert (on_gpu.embed_crops(crops) * on_cpu.embed_crops(crops)).sum(axis=1).min() > 0.9995
    assert on_gpu.fingerprint != on_cpu.fingerprint
