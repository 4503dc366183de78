"""The parts that are compiled trace without a break, and give the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from tests.float_bounds import bounded
from tests.tasks.models.groundingdino.fast.conftest import Starter
from vouch_labels.tasks.models import compile
from vouch_labels.tasks.models.groundingdino.fast.attention import cut
from vouch_labels.tasks.models.groundingdino.fast.backbone import Block
from vouch_labels.tasks.models.groundingdino.fast.model import FastGroundingDino
from vouch_labels.tasks.models.groundingdino.fast.multiscale import make_layout, places_of_boxes
from vouch_labels.tasks.models.groundingdino.fast.transformer import DecoderLayer, ImageLayer, TextLayer
from vouch_labels.tasks.models.runtime import Engine

SHAPES = ((9, 7), (5, 4), (3, 2))
SAMPLING_OF_THE_PACKAGE = Engine(Engine().switches - {"deformable"})
"""For float64, in which the fast sampling does not compute."""
Part = tuple[Callable[..., Any], tuple[Any, ...]]


def swin_block(model: Any, engine: Engine) -> Part:
    block = Block(model.backbone[0].layers[0].blocks[1], engine)
    windows = cut((9, 7), block.side, block.shift, torch.device("cpu"))
    return block.forward, (torch.randn(2, 63, 32), windows)


def image_layer(model: Any, engine: Engine) -> Part:
    layout = make_layout(model, SHAPES, 1, torch.device("cpu"))
    layer = ImageLayer(model.transformer.encoder.layers[0], engine)
    return layer.forward, (torch.randn(2, 89, 256), layout.positions, layout.places, layout.levels)


def text_layer(model: Any, engine: Engine) -> Part:
    layer = TextLayer(model.transformer.encoder.text_layers[0], engine)
    return layer.forward, (torch.randn(2, 6, 256), torch.randn(1, 6, 256), torch.ones(1, 6, 6, dtype=torch.bool).tril())


def decoder_layer(model: Any, engine: Engine) -> Part:
    layer = DecoderLayer(model.transformer.decoder.layers[0], engine)
    levels = make_layout(model, SHAPES, 1, torch.device("cpu")).levels
    places = places_of_boxes(torch.rand(2, 5, 4), levels, layer.points)
    states = [torch.randn(2, length, 256) for length in (5, 5, 89, 6)]
    return layer.forward, (*states, places, levels)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("part", [swin_block, image_layer, text_layer, decoder_layer])
def test_no_breaks(starter: Starter, part: Callable[[Any, Engine], Part], backend: str) -> None:
    torch.compiler.reset()
    forward, inputs = part(starter.model, Engine())
    exact, _ = part(starter.exact, SAMPLING_OF_THE_PACKAGE)
    wide = tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, inputs
    )
    wanted = bounded(lambda: tree_leaves(exact(*wide)))
    with torch.inference_mode():
        as_it_is = tree_leaves(forward(*inputs))
        compiled = torch.compile(forward, backend=backend, fullgraph=True, dynamic=False)
        for one, before, found in zip(wanted, as_it_is, tree_leaves(compiled(*inputs)), strict=True):
            one.check(before)
            one.check(found)
            assert one.bound < 0.01
    torch.compiler.reset()


def test_a_compiler_that_always_fails_is_tried_once_for_all_layers(
    starter: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    def fail(*args: Any, **options: Any) -> Any:
        tries.append(1)
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(compile, "_FAILED", [])
    monkeypatch.setattr(compile, "_keep_on_disk", lambda: None)
    image, text = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)), starter.texts[1]
    answers = []
    with torch.inference_mode():
        for engine in (Engine(), Engine(compile=True)):
            fast = FastGroundingDino(starter.model, engine)
            answers.append(fast.find(fast.encode_images(image), fast.prepare(text)))
    assert len(tries) == len(caplog.records) == 1
    # To the bit: what cannot be compiled is run by the same kernels on the same shapes.
    assert all(torch.equal(*pair) for pair in zip(*answers, strict=True))
