"""A tiny GroundingDINO with random weights, saved as users save theirs, and the config that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture


def spread(model: Any, seed: int = 0) -> None:
    """Random weights that make scores and boxes differ; fresh ones give almost the same box everywhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
            else:
                scale = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(scale + torch.randn(parameter.shape, generator=generator) * 0.05)
        model.transformer.decoder.norm.weight.mul_(0.1)  # else the sigmoid of every logit is 0 or 1
        model.transformer.decoder.norm.bias.mul_(0.1)


@pytest.fixture(scope="session")
def saved(tiny_groundingdino: dict[str, Any], tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with tiny.json and tiny.pth."""
    folder = tmp_path_factory.mktemp("groundingdino")
    (folder / "tiny.json").write_text(json.dumps(tiny_groundingdino))
    model = build_groundingdino(read_architecture(folder / "tiny.json").model_dump(), tiny_tokenizer)
    spread(model)
    torch.save({"model": {f"module.{name}": value for name, value in model.state_dict().items()}}, folder / "tiny.pth")
    return folder


@pytest.fixture(scope="session")
def config(saved: Path, tiny_tokenizer: Path) -> Callable[..., DetectorConfig]:
    def make(**changes: Any) -> DetectorConfig:
        fields = {
            "checkpoint": str(saved / "tiny.pth"),
            "architecture": str(saved / "tiny.json"),
            "text_encoder": str(tiny_tokenizer),
            **changes,
        }
        return DetectorConfig(**fields)

    return make
