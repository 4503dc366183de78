"""The bundled detector with the package's own forward, and the images that come with it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from schemas.campaign.models import DetectorConfig
from tasks.models.engine.switches import REFERENCE
from tasks.models.groundingdino.backend import load
from tasks.models.groundingdino.captions import pack_captions
from tasks.models.groundingdino.forward import TextFeatures, encode_images, encode_text, find
from tasks.models.groundingdino.resize import normalise, resize_image, resized_shape
from tasks.models.runtime import Runtime

SAMPLES = Path(__file__).parents[5] / "starter" / "samples"


class Starter(NamedTuple):
    model: Any
    images: list[Tensor]
    """(1, 3, H, W) each, of several sizes."""
    texts: list[TextFeatures]
    """All sample classes; then two of them; then a hundred words, in one caption."""

    def by_the_package(self, images: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            logits, boxes = find(self.model, encode_images(self.model, images), text)
        return logits[..., : text["encoded_text"].shape[1]], boxes


@pytest.fixture(scope="session")
def starter() -> Starter:
    detector = load(DetectorConfig(), Runtime("cpu", "fp32", REFERENCE))
    model = detector._model
    images = []
    for number in range(4):
        pixels = np.asarray(Image.open(SAMPLES / f"scene-{number:05d}.jpg").convert("RGB"))
        shape = resized_shape(*pixels.shape[:2], detector._architecture.resize)
        images.append(normalise(torch.tensor(resize_image(pixels, shape))[None], shape))
    names = [category["name"] for category in json.loads((SAMPLES / "ground_truth.json").read_text())["categories"]]
    many = [f"{colour} {name}" for colour in ("red", "small") for name in names]
    with torch.inference_mode():
        captions = [pack_captions(words, model.tokenizer, 256)[0] for words in (names, names[:2], many)]
        return Starter(model, images, [encode_text(model, caption.input_ids, "cpu") for caption in captions])
