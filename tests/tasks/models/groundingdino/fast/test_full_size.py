"""The published size, with random weights: the same numbers from the same 900 queries."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from schemas.campaign.models import ModelsConfig
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.architectures import read_architecture
from tasks.models.groundingdino.compat import build_groundingdino
from tasks.models.groundingdino.fast.late_heads import Selection
from tasks.models.groundingdino.fast.model import FastGroundingDino
from tasks.models.groundingdino.forward import encode_images, encode_text, find, keep_heads_exact
from tasks.models.runtime import choose_runtime
from tests.tasks.models.groundingdino.conftest import spread

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=GPU)])
@pytest.mark.parametrize("size", [(480, 640), (333, 517)])
def test_swin_t(tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], device: str) -> None:
    choose_runtime(ModelsConfig(device=device, precision="fp32"))  # no TF32
    model: Any = build_groundingdino(read_architecture("swin_t").model_dump(), tiny_tokenizer)
    spread(model)
    model.requires_grad_(False)
    keep_heads_exact(model)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    chosen: list[Tensor] = []
    topk = torch.topk

    def remember(*args: Any, **kwargs: Any) -> Any:
        answer = topk(*args, **kwargs)
        chosen.append(answer[1])
        return answer

    with torch.inference_mode():
        text = encode_text(model, (2, *range(10, 28), 3), "cpu")
        with monkeypatch.context() as patch:
            patch.setattr(torch, "topk", remember)
            logits, boxes = find(model, encode_images(model, images), text)
        # Random weights leave near-ties among the proposals, so both sides go on from the same ones.
        monkeypatch.setattr(Selection, "best", lambda self, scores: chosen[0].to(scores.device))
        fast = FastGroundingDino(model.to(device), Engine())
        there = {name: value.to(device) for name, value in text.items()}
        found = fast.find(fast.encode_images(images.to(device)), fast.prepare(there))
    ours, our_boxes = (each.cpu() for each in found)
    assert boxes.std() > 0.05
    assert logits[..., :20].std() > 0.05
    torch.testing.assert_close(our_boxes, boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours, logits[..., :20], atol=1e-4, rtol=0)
