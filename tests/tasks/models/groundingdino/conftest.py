"""Tiny detectors, and the bundled one with the package's own forward and the images that come with it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.float_bounds import Bounded, bounded, in_float64
from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.tasks.models.groundingdino.backend import load
from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture
from vouch_labels.tasks.models.groundingdino.fast.transformer import Selection
from vouch_labels.tasks.models.groundingdino.forward import (
    ReferenceForward,
    TextFeatures,
    encode_text,
    normalise,
    resize_image,
    resized_shape,
)
from vouch_labels.tasks.models.prompts import pack_captions
from vouch_labels.tasks.models.runtime import REFERENCE, Runtime

SAMPLES = Path(__file__).parents[4] / "starter" / "samples"


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


class Wanted(NamedTuple):
    """What the package's forward pass says in float64, and how far float32 may be from it."""

    logits: Bounded
    boxes: Bounded
    """In shares of the image."""
    scores: Bounded
    selection: Bounded
    """The scores of the cells that become queries, best first."""
    cells: Tensor
    """Those cells (B, Q)."""

    def check(self, logits: Tensor, boxes: Tensor) -> None:
        """Assert that logits of the caption's tokens and boxes are these, query by query."""
        self.boxes.check(boxes)
        self.scores.check(logits.double().sigmoid())
        self.logits.check(logits)

    @contextmanager
    def selected(self) -> Iterator[None]:
        """Let the fast forward pass go on from these cells, which may lack no more than rounding to be its own choice.

        Which of two cells with nearly the same score comes first depends on the last bits, and so on the processor.
        """

        def best(selection: Selection, scores: Tensor) -> Tensor:
            cells = self.cells.to(scores.device)
            own = scores.topk(cells.shape[1], 1).values
            assert (own - scores.gather(1, cells)).abs().max() <= 2 * self.selection.bound
            return cells

        with patch.object(Selection, "best", best):
            yield


def wanted_of(exact: Any, images: Tensor, text: TextFeatures) -> Wanted:
    """The package's forward pass, of a model `in_float64` or of one too large for that, on images and a text."""
    dtype = next(exact.parameters()).dtype
    wide = {name: value.to(dtype) if value.is_floating_point() else value for name, value in text.items()}
    cells: list[Tensor] = []

    def answer() -> list[Tensor]:
        scores: list[Tensor] = []

        def topk(values: Tensor, count: int, dim: int) -> tuple[Tensor, Tensor]:
            if not cells:
                cells.append(values.topk(count, dim).indices)
            scores.append(values.gather(dim, cells[0]))
            return scores[0], cells[0]

        with patch.object(torch, "topk", topk):
            package = ReferenceForward(exact)
            logits, boxes = package.find(package.encode_images(images.to(dtype)), wide)
        logits = logits[..., : text["encoded_text"].shape[1]]
        return [logits, boxes, logits.sigmoid(), *scores]

    bounds = bounded(answer, wide=dtype == torch.float64)
    return Wanted(bounds[0], bounds[1], bounds[2], bounds[3], cells[0])


class Starter(NamedTuple):
    model: Any
    exact: Any
    """The model in float64."""
    images: list[Tensor]
    """(1, 3, H, W) each, of several sizes."""
    texts: list[TextFeatures]
    """All sample classes; then two of them; then a hundred words, in one caption."""
    known: dict[tuple[int, int], Wanted]

    def wanted(self, image: int, text: int) -> Wanted:
        """For an image and a text, by their numbers: worked out once."""
        if (image, text) not in self.known:
            self.known[image, text] = wanted_of(self.exact, self.images[image], self.texts[text])
        return self.known[image, text]

    def by_the_package(self, images: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            package = ReferenceForward(self.model)
            logits, boxes = package.find(package.encode_images(images), text)
        return logits[..., : text["encoded_text"].shape[1]], boxes


@pytest.fixture(scope="session")
def starter() -> Starter:
    detector = load(DetectorConfig(), Runtime("cpu", "fp32", REFERENCE))
    model = detector._model
    images = []
    for number in range(4):
        pixels = np.asarray(Image.open(SAMPLES / f"scene-{number:05d}.jpg").convert("RGB"))
        shape = resized_shape(pixels.shape[0], pixels.shape[1], detector._architecture.resize)
        images.append(normalise(torch.tensor(resize_image(pixels, shape))[None], shape))
    names = [category["name"] for category in json.loads((SAMPLES / "ground_truth.json").read_text())["categories"]]
    many = [f"{colour} {name}" for colour in ("red", "small") for name in names]
    with torch.inference_mode():
        captions = [pack_captions(words, model.tokenizer, 256)[0] for words in (names, names[:2], many)]
        texts = [encode_text(model, caption.input_ids, "cpu") for caption in captions]
    return Starter(model, in_float64(model), images, texts, {})
