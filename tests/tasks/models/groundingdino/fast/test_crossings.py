"""The forward pass neither brings anything to a GPU nor waits for it; seen without one."""

from collections.abc import Iterator

import pytest
import torch

from tests.tasks.models.fake_cuda import FakeCuda, crossings_of
from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.tasks.models.groundingdino.backend import load
from vouch_labels.tasks.models.groundingdino.fast.model import FastGroundingDino
from vouch_labels.tasks.models.groundingdino.fast.multiscale import sample_grids
from vouch_labels.tasks.models.groundingdino.forward import _channels, normalise
from vouch_labels.tasks.models.prompts import TokenScores
from vouch_labels.tasks.models.runtime import REFERENCE, Engine, Runtime


@pytest.fixture(autouse=True)
def _no_fakes_are_kept() -> Iterator[None]:
    _channels.cache_clear()
    yield
    _channels.cache_clear()


def test_nothing_crosses_between_images_and_scores() -> None:
    detector = load(DetectorConfig(), Runtime("cpu", "fp32", REFERENCE))
    model, cuda = detector._model, FakeCuda()
    asked = detector._ask(("dog", "cat"))[0]
    with torch.no_grad():
        on_cpu = FastGroundingDino(model, Engine())
        layout = on_cpu._layout(on_cpu.encode_images(torch.zeros(1, 3, 192, 224)).shapes, torch.device("cpu"))
    cuda.model(model)
    there = cuda.tensors(layout)
    with cuda.mode:
        fast, text = FastGroundingDino(model, Engine()), cuda.tensors(asked.text)
        fast._layout = lambda shapes, device: there  # made once a shape, from numbers that a fake tensor has not
        prepared, scores = fast.prepare(text), TokenScores(asked.scores.caption, "cuda")
        images = torch.zeros(2, 192, 224, 3, dtype=torch.uint8, device="cuda")

        def forward() -> None:
            logits, boxes = fast.find(fast.encode_images(normalise(images, (192, 224))), prepared)
            assert scores(logits).device == boxes.device == torch.device("cuda", 0)

        assert crossings_of(forward) == []


def test_nothing_crosses_without_the_kernel() -> None:
    cuda = FakeCuda()
    with cuda.mode:
        values, x = torch.zeros(2, 47, 3, 4, device="cuda"), torch.zeros(2, 5, 3, 4, device="cuda")

        def forward() -> None:
            assert sample_grids(values, ((5, 7), (3, 4)), x, x, x).device == torch.device("cuda", 0)

        assert crossings_of(forward) == []
