"""The fast image towers against open_clip's own."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip import CLIP
from PIL import Image

from tests.float_bounds import Bounded, bounded, in_float64
from vouch_labels.schemas.campaign import ScorerConfig
from vouch_labels.tasks.models.open_clip.backend import OpenClipScorer, PooledToken, SelfAttention, install
from vouch_labels.tasks.models.registry import load_scorer
from vouch_labels.tasks.models.runtime import REFERENCE, Engine, Runtime

SAMPLES = Path(__file__).parents[4] / "starter" / "samples"
ENGINES = {name: Engine(frozenset([name])) for name in ("folded_scorer", "channels_last")} | {"all": Engine()}
TOWERS: dict[str, Any] = {
    "resnet": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16, "head_width": 32},
    "transformer": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
}
TEXTS = ["a photo of a dog.", "a photo of a bicycle.", "a tree"]
TEXT = {"context_length": 16, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights and statistics that differ from their initial values."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if "bn" in name or "downsample.1" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5) if value.dim() else None
    return model.eval()


def encoded_exactly(model, images, tokens) -> list[Bounded]:
    """Embeddings of images and of texts, of unit length, by the package in float64."""
    wide = in_float64(model)
    return bounded(
        lambda: [wide.encode_image(images.double(), normalize=True), wide.encode_text(tokens, normalize=True)]
    )


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("name", ENGINES)
def test_features_are_the_package_s(tower, name):
    torch.manual_seed(2)
    model = lively(CLIP(embed_dim=24, vision_cfg=TOWERS[tower], text_cfg=TEXT))
    images = torch.randn(3, 3, TOWERS[tower]["image_size"], TOWERS[tower]["image_size"])
    tokens = torch.randint(1, 50, (2, 16))
    fast = copy.deepcopy(model)
    install(fast, Runtime("cpu", "fp32", ENGINES[name]))
    wanted, wanted_texts = encoded_exactly(model, images, tokens)
    with torch.inference_mode():
        for layout in (torch.contiguous_format, torch.channels_last):
            wanted.check(fast.encode_image(images.contiguous(memory_format=layout), normalize=True))
        wanted_texts.check(fast.encode_text(tokens, normalize=True))
    assert wanted.bound < 1e-3
    kinds = {type(module) for module in fast.modules()}
    assert (({PooledToken, SelfAttention} & kinds) != set()) == (name != "channels_last")
    assert (torch.nn.BatchNorm2d in kinds) == (name == "channels_last" and tower == "resnet")


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    truth = json.loads((SAMPLES / "ground_truth.json").read_text())
    found = []
    for entry in truth["images"][:6]:
        image = np.asarray(Image.open(SAMPLES / entry["file_name"]).convert("RGB"))
        for row in truth["annotations"]:
            if row["image_id"] == entry["id"]:
                left, top, width, height = (int(value) for value in row["bbox"])
                found.append(image[top : top + max(height, 1), left : left + max(width, 1)])
    return found


def scorer(engine: Engine, precision: str = "fp32") -> OpenClipScorer:
    made = load_scorer(ScorerConfig(), Runtime("cpu", precision, engine))
    assert isinstance(made, OpenClipScorer)
    return made


@pytest.fixture(scope="module")
def wanted(crops) -> list[Bounded]:
    """Embeddings of the crops and of the texts by the bundled model."""
    own = scorer(REFERENCE)
    pixels = torch.from_numpy(np.stack([own._fit(crop) for crop in crops])).permute(0, 3, 1, 2)
    images = (pixels.double() / 255 - own._mean.double()) / own._std.double()
    return encoded_exactly(own._model, images, own._tokenize(TEXTS, own._text_length))


@pytest.mark.parametrize("name", [*ENGINES, "reference"])
def test_embeddings_of_the_bundled_model_are_the_package_s(crops, wanted, name):
    made = scorer(ENGINES.get(name, REFERENCE))
    for one, found in zip(wanted, (made.embed_crops(crops), made.embed_texts(TEXTS)), strict=True):
        one.check(torch.from_numpy(found))
        assert one.bound < 1e-3
    assert made.fingerprint == scorer(REFERENCE).fingerprint


def test_bf16_is_near_and_keeps_its_weights_in_bf16(crops):
    half = scorer(Engine(), "bf16")
    assert (half.embed_crops(crops) * scorer(REFERENCE).embed_crops(crops)).sum(axis=1).min() > 0.99
    visual: Any = half._model.visual
    assert visual.conv1.weight.dtype == torch.bfloat16


@pytest.mark.slow
def test_a_full_size_vit_b_32():
    from open_clip import get_model_config

    torch.manual_seed(0)
    model = CLIP(**get_model_config("ViT-B-32")).eval()
    fast = copy.deepcopy(model)
    install(fast, Runtime("cpu", "fp32"))
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        found = fast.encode_image(images, normalize=True)
    wide = in_float64(model)
    [wanted] = bounded(lambda: [wide.encode_image(images.double(), normalize=True)])
    wanted.check(found)
    assert wanted.bound < 1e-3
