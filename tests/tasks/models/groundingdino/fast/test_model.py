"""The fast forward pass says what the package's own says."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tasks.models.groundingdino.fast.conftest import Starter, Wanted, wanted_of
from vouch_labels.tasks.models.groundingdino.fast.model import SWITCHES, FastGroundingDino
from vouch_labels.tasks.models.groundingdino.forward import TextFeatures
from vouch_labels.tasks.models.runtime import Engine

ALL = frozenset(SWITCHES)
CHOICES = [frozenset[str](), *(frozenset([name]) for name in SWITCHES), *(ALL - {name} for name in SWITCHES), ALL]


def run(
    model: Any, switches: frozenset[str], images: Tensor, text: TextFeatures, wanted: Wanted
) -> tuple[Tensor, Tensor]:
    fast = FastGroundingDino(model, Engine(switches))
    with torch.inference_mode(), wanted.selected():
        logits, boxes = fast.find(fast.encode_images(images), fast.prepare(text))
    return logits[..., : text["encoded_text"].shape[1]], boxes


@pytest.mark.parametrize("switches", CHOICES, ids=lambda switches: "+".join(sorted(switches)) or "none")
def test_each_switch_alone_each_left_out_and_all_together(starter: Starter, switches: frozenset[str]) -> None:
    wanted = starter.wanted(1, 0)
    wanted.check(*run(starter.model, switches, starter.images[1], starter.texts[0], wanted))


@pytest.mark.parametrize("caption", [0, 1, 2])
@pytest.mark.parametrize("number", range(4))
def test_samples_and_captions(starter: Starter, number: int, caption: int) -> None:
    wanted = starter.wanted(number, caption)
    wanted.check(*run(starter.model, ALL, starter.images[number], starter.texts[caption], wanted))
    assert np.ptp(wanted.boxes.exact.numpy()) > 0.2
    # A bound that would let other answers pass would test nothing.
    assert wanted.scores.bound < 0.01
    assert wanted.boxes.bound < 1e-3


def test_the_package_s_own_float32_is_within_the_bounds(starter: Starter) -> None:
    wanted = starter.wanted(1, 0)

    def topk(values: Tensor, count: int, dim: int) -> tuple[Tensor, Tensor]:
        return values.gather(dim, wanted.cells), wanted.cells

    with patch.object(torch, "topk", topk):
        wanted.check(*starter.by_the_package(starter.images[1], starter.texts[0]))


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (61, 200), (250, 33), (33, 250)])
def test_odd_and_small_sizes(starter: Starter, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = wanted_of(starter.exact, image, starter.texts[1])
    wanted.check(*run(starter.model, ALL, image, starter.texts[1], wanted))


def test_thirty_two_pixels(starter: Starter) -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    # As many queries as such an image has cells.
    kept = [(each, each.transformer.num_queries, each.transformer.tgt_embed.weight) for each in starter[:2]]
    for each, _, weight in kept:
        each.transformer.num_queries = 21
        each.transformer.tgt_embed.weight = torch.nn.Parameter(weight[:21], requires_grad=False)
    try:
        wanted = wanted_of(starter.exact, image, starter.texts[0])
        for switches in (ALL, ALL - {"deformable"}):
            wanted.check(*run(starter.model, switches, image, starter.texts[0], wanted))
    finally:
        for each, queries, weight in kept:
            each.transformer.num_queries, each.transformer.tgt_embed.weight = queries, weight


@pytest.mark.parametrize("switches", [ALL, frozenset({"late_heads"})], ids=["all", "few"])
def test_a_batch_equals_its_images_alone(starter: Starter, switches: frozenset[str]) -> None:
    image = starter.images[0]
    batch = torch.cat([image, image.flip(3), image.flip(2)])
    wanted = wanted_of(starter.exact, batch, starter.texts[0])
    wanted.check(*run(starter.model, switches, batch, starter.texts[0], wanted))
    for number in range(3):
        one = slice(number, number + 1)
        logits, boxes, scores, selection = (each._replace(exact=each.exact[one]) for each in wanted[:4])
        of_one = Wanted(logits, boxes, scores, selection, wanted.cells[one])
        of_one.check(*run(starter.model, switches, batch[one], starter.texts[0], of_one))


def test_sizes_and_captions_that_come_back_are_not_mixed_up(starter: Starter) -> None:
    fast = FastGroundingDino(starter.model, Engine(ALL))
    with torch.inference_mode():
        texts = [fast.prepare(text) for text in starter.texts]
        for _ in range(2):
            for image in range(2):
                seen = fast.encode_images(starter.images[image])
                for number, (prepared, text) in enumerate(zip(texts, starter.texts, strict=True)):
                    wanted = starter.wanted(image, number)
                    with wanted.selected():
                        logits, boxes = fast.find(seen, prepared)
                    wanted.check(logits[..., : text["encoded_text"].shape[1]], boxes)


def test_the_model_stays_as_it_was(starter: Starter) -> None:
    before = {name: value.clone() for name, value in starter.model.state_dict().items()}
    run(starter.model, ALL, starter.images[0], starter.texts[0], starter.wanted(0, 0))
    after = starter.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # copies, not computed
    assert not any("forward" in module.__dict__ for module in starter.model.transformer.encoder.modules())
