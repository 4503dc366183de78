"""The published size, with random weights: the same numbers from the same 900 queries."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.models.groundingdino.conftest import spread
from tests.tasks.models.groundingdino.fast.conftest import wanted_of
from vouch_labels.schemas.campaign import ModelsConfig
from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture
from vouch_labels.tasks.models.groundingdino.fast.model import FastGroundingDino
from vouch_labels.tasks.models.groundingdino.forward import encode_text, keep_heads_exact
from vouch_labels.tasks.models.runtime import Engine, choose_runtime

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=GPU)])
@pytest.mark.parametrize("size", [(480, 640), (333, 517)])
def test_swin_t(tiny_tokenizer: Path, size: tuple[int, int], device: str) -> None:
    choose_runtime(ModelsConfig(device=device, precision="fp32"))  # no TF32
    model: Any = build_groundingdino(read_architecture("swin_t").model_dump(), tiny_tokenizer)
    spread(model)
    model.requires_grad_(False)
    keep_heads_exact(model)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        text = encode_text(model, (2, *range(10, 28), 3), "cpu")
    wanted = wanted_of(model, images, text)
    fast = FastGroundingDino(model.to(device), Engine())
    there = {name: value.to(device) for name, value in text.items()}
    with torch.inference_mode(), wanted.selected():
        logits, boxes = fast.find(fast.encode_images(images.to(device)), fast.prepare(there))
    assert wanted.boxes.exact.std() > 0.05
    assert wanted.logits.exact.std() > 0.05
    wanted.check(logits.cpu(), boxes.cpu())
    assert max(wanted.boxes.bound, wanted.scores.bound) < 0.01
