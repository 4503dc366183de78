"""The fast forward pass says what the package's own says."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.choose import SWITCHES
from tasks.models.groundingdino.fast.model import FastGroundingDino
from tasks.models.groundingdino.forward import TextFeatures, encode_images, find
from tests.tasks.models.groundingdino.fast.conftest import Starter

ALL = frozenset(SWITCHES)
CHOICES = [frozenset[str](), *(frozenset([name]) for name in SWITCHES), *(ALL - {name} for name in SWITCHES), ALL]
CLOSE = 1e-4
"""Of boxes, in shares of the image, and of scores."""
CLOSE_LOGITS = 4e-4
"""Of logits, which reach -16 with the bundled model: its own float32 is 1.2e-4 away from float64 there."""


def run(model: Any, switches: frozenset[str], images: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
    fast = FastGroundingDino(model, Engine(switches))
    with torch.inference_mode():
        logits, boxes = fast.find(fast.encode_images(images), fast.prepare(text))
    return logits[..., : text["encoded_text"].shape[1]], boxes


def assert_same(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(ours[1], theirs[1], atol=CLOSE, rtol=0)
    torch.testing.assert_close(ours[0].sigmoid(), theirs[0].sigmoid(), atol=CLOSE, rtol=0)
    torch.testing.assert_close(ours[0], theirs[0], atol=CLOSE_LOGITS, rtol=0)


@pytest.mark.parametrize("switches", CHOICES, ids=lambda switches: "+".join(sorted(switches)) or "none")
def test_each_switch_alone_each_left_out_and_all_together(starter: Starter, switches: frozenset[str]) -> None:
    image, text = starter.images[1], starter.texts[0]
    assert_same(run(starter.model, switches, image, text), starter.by_the_package(image, text))


@pytest.mark.parametrize("caption", [0, 1, 2])
@pytest.mark.parametrize("number", range(4))
def test_samples_and_captions(starter: Starter, number: int, caption: int) -> None:
    image, text = starter.images[number], starter.texts[caption]
    theirs = starter.by_the_package(image, text)
    assert_same(run(starter.model, ALL, image, text), theirs)
    assert np.ptp(theirs[1].numpy()) > 0.2


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (61, 200), (250, 33), (33, 250)])
def test_odd_and_small_sizes(starter: Starter, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    text = starter.texts[1]
    assert_same(run(starter.model, ALL, image, text), starter.by_the_package(image, text))


def test_thirty_two_pixels(starter: Starter) -> None:
    model = starter.model
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    # As many queries as such an image has cells.
    kept = model.transformer.num_queries, model.transformer.tgt_embed.weight
    model.transformer.num_queries = 21
    model.transformer.tgt_embed.weight = torch.nn.Parameter(kept[1][:21], requires_grad=False)
    try:
        theirs = starter.by_the_package(image, starter.texts[0])
        assert_same(run(model, ALL, image, starter.texts[0]), theirs)
        assert_same(run(model, ALL - {"deformable"}, image, starter.texts[0]), theirs)
    finally:
        model.transformer.num_queries, model.transformer.tgt_embed.weight = kept


@pytest.mark.parametrize("switches", [ALL, frozenset({"late_heads"})], ids=["all", "few"])
def test_a_batch_equals_its_images_alone(starter: Starter, switches: frozenset[str]) -> None:
    image = starter.images[0]
    batch = torch.cat([image, image.flip(3), image.flip(2)])
    together = run(starter.model, switches, batch, starter.texts[0])
    for number in range(3):
        alone = run(starter.model, switches, batch[number : number + 1], starter.texts[0])
        assert_same((together[0][number : number + 1], together[1][number : number + 1]), alone)
    assert_same(together, starter.by_the_package(batch, starter.texts[0]))


def test_sizes_and_captions_that_come_back_are_not_mixed_up(starter: Starter) -> None:
    fast = FastGroundingDino(starter.model, Engine(ALL))
    with torch.inference_mode():
        texts = [fast.prepare(text) for text in starter.texts]
        for _ in range(2):
            for image in starter.images[:2]:
                seen = fast.encode_images(image)
                for prepared, text in zip(texts, starter.texts, strict=True):
                    logits, boxes = fast.find(seen, prepared)
                    ours = logits[..., : text["encoded_text"].shape[1]], boxes
                    assert_same(ours, starter.by_the_package(image, text))


def test_no_further_from_float64_than_the_package(starter: Starter) -> None:
    exact = copy.deepcopy(starter.model)
    for module in exact.modules():
        module.__dict__.pop("forward", None)  # heads that would narrow to float32
    exact.double()
    ours, theirs = [], []
    for image in starter.images:
        text = starter.texts[0]
        wide = {name: value.double() if value.is_floating_point() else value for name, value in text.items()}
        with torch.inference_mode():
            wanted = find(exact, encode_images(exact, image.double()), wide)[0][..., : text["encoded_text"].shape[1]]
        ours.append((run(starter.model, ALL, image, text)[0] - wanted).abs())
        theirs.append((starter.by_the_package(image, text)[0] - wanted).abs())
    assert torch.stack([each.max() for each in ours]).mean() < 2 * torch.stack([each.max() for each in theirs]).mean()
    assert torch.cat([each.flatten() for each in ours]).mean() < 1.5 * torch.cat([e.flatten() for e in theirs]).mean()


def test_the_model_stays_as_it_was(starter: Starter) -> None:
    before = {name: value.clone() for name, value in starter.model.state_dict().items()}
    theirs = starter.by_the_package(starter.images[0], starter.texts[0])
    run(starter.model, ALL, starter.images[0], starter.texts[0])
    after = starter.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = starter.by_the_package(starter.images[0], starter.texts[0])
    assert torch.equal(theirs[0], again[0])
