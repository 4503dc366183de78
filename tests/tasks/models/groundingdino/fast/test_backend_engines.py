"""The detector with its engine switched to and fro through its public path, and its parts compiled."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from tests.float_bounds import U32, assert_within, bounded
from tests.tasks.models.groundingdino.conftest import SAMPLES, Starter, wanted_of
from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig
from vouch_labels.tasks.models import compile
from vouch_labels.tasks.models.groundingdino.backend import GroundingDino, load
from vouch_labels.tasks.models.groundingdino.fast.attention import cut
from vouch_labels.tasks.models.groundingdino.fast.model import Block, FastGroundingDino
from vouch_labels.tasks.models.groundingdino.fast.multiscale import make_layout, places_of_boxes
from vouch_labels.tasks.models.groundingdino.fast.transformer import DecoderLayer, ImageLayer, TextLayer
from vouch_labels.tasks.models.groundingdino.forward import ReferenceForward, normalise, resize_image, resized_shape
from vouch_labels.tasks.models.registry import Phrase, Pixels, RawDetections
from vouch_labels.tasks.models.runtime import REFERENCE, Engine, Runtime, choose_runtime

PHRASES = [
    Phrase(text, number) for number, text in enumerate(["dog", "cat", "car", "bus", "apple", "umbrella", "fish"])
]
SHAPES = ((9, 7), (5, 4), (3, 2))
SAMPLING_OF_THE_PACKAGE = Engine(Engine().switches - {"deformable"})
"""For float64, in which the fast sampling does not compute."""
Part = tuple[Callable[..., Any], tuple[Any, ...]]


@pytest.fixture(scope="module")
def images() -> list[Pixels]:
    return [np.array(Image.open(SAMPLES / f"scene-{number:05d}.jpg").convert("RGB")) for number in range(6)]


@pytest.fixture(scope="module")
def reference() -> GroundingDino:
    return load(DetectorConfig(), Runtime("cpu", "fp32", REFERENCE))


def best_ious(ours: Sequence[RawDetections], theirs: Sequence[RawDetections]) -> np.ndarray:
    """Of each of their boxes with the nearest of ours."""
    from torchvision.ops import box_iou

    pairs = zip(ours, theirs, strict=True)
    found = [box_iou(torch.tensor(b.boxes), torch.tensor(a.boxes)).amax(1) for a, b in pairs if len(b.boxes)]
    return torch.cat(found).numpy()


def test_fast_finds_what_the_package_finds(reference: GroundingDino, starter: Starter, images: list[Pixels]) -> None:
    fast = load(DetectorConfig(), Runtime("cpu", "fp32"))
    assert isinstance(fast._net, FastGroundingDino)
    assert isinstance(reference._net, ReferenceForward)
    asked = reference._ask(tuple(phrase.text for phrase in PHRASES))[0]
    best = 0.0
    for image in images[:3]:
        height, width = image.shape[:2]
        shape = resized_shape(height, width, reference._architecture.resize)
        wanted = wanted_of(starter.exact, normalise(torch.tensor(resize_image(image, shape))[None], shape), asked.text)
        with wanted.selected():
            [found] = fast.detect([image], PHRASES, 0.0)
        scores = asked.scores(wanted.logits.exact)[0]
        assert_within(torch.from_numpy(found.scores), scores, wanted.scores.bound)
        x, y, w, h = wanted.boxes.exact[0].T
        boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1).clamp(0, 1)
        sides = torch.tensor([width, height, width, height])
        # A side is half a width away from the centre; then come a few roundings in pixels.
        assert_within(torch.from_numpy(found.boxes), boxes * sides, (1.5 * wanted.boxes.bound + 4 * U32) * sides)
        best = max(best, float(scores.max()))
    assert best > 0.3
    assert fast.fingerprint == reference.fingerprint


def test_bf16_boxes_lie_where_those_of_fp32_lie(reference: GroundingDino, images: list[Pixels]) -> None:
    half = load(DetectorConfig(), Runtime("cpu", "bf16"))
    ious = best_ious(half.detect(images, PHRASES, 0.15), reference.detect(images, PHRASES, 0.3))
    assert len(ious) > 3
    # An offset rounded to 8 bits moves a side by some 2**-8 of a quarter of the image, the sigmoid being steepest, that
    # is 0.1%; four sides of boxes a fifth of the image wide then cost an overlap of 1 to 2%.
    assert ious.mean() >= 0.97
    other = load(DetectorConfig(), Runtime("cpu", "bf16", REFERENCE))
    assert len({half.fingerprint, other.fingerprint, reference.fingerprint}) == 3


def test_scores_may_be_taken_on_the_host(reference: GroundingDino, images: list[Pixels]) -> None:
    engine = Engine(frozenset({"late_heads", "device_token_scores"}))
    there, here = (
        load(DetectorConfig(), Runtime("cpu", "fp32", chosen)).detect(images[:1], PHRASES, 0.0)[0]
        for chosen in (engine, Engine(frozenset({"late_heads"})))
    )
    np.testing.assert_array_equal(there.scores, here.scores)  # on a CPU both are the same kernels


def test_other_backbones_run_the_package_s_forward(reference: GroundingDino, monkeypatch: pytest.MonkeyPatch) -> None:
    from vouch_labels.tasks.models.groundingdino.fast.model import choose_forward

    monkeypatch.setattr(reference._model.transformer, "two_stage_type", "no")
    assert isinstance(choose_forward(reference._model, Runtime("cpu", "fp32")), ReferenceForward)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_host_waits_for_nothing_on_a_gpu(precision: str, images: list[Pixels]) -> None:
    from torch.profiler import ProfilerActivity, profile

    detector = load(DetectorConfig(), Runtime("cuda:0", precision))
    asked = detector._ask(tuple(phrase.text for phrase in PHRASES))
    pixels = torch.randn(2, 3, 192, 224, device="cuda")

    def forward() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            logits, _ = detector._net.find(detector._net.encode_images(pixels), asked[0].text)
            asked[0].scores(logits)

    forward()  # makes what is kept by shape
    forward()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        forward()
    waits = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "aten::item"}
    waited = {event.key: event.count for event in seen.key_averages() if event.key in waits}
    waited.pop("cudaDeviceSynchronize", None)  # the profiler's own, when it ends
    assert not waited


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu(reference: GroundingDino, images: list[Pixels]) -> None:
    theirs = reference.detect(images, PHRASES, 0.3)
    for precision in ("fp32", "bf16"):
        runtime = choose_runtime(ModelsConfig(device="cuda:0", precision=precision))
        found = load(DetectorConfig(), runtime).detect(images, PHRASES, 0.15)
        assert best_ious(found, theirs).mean() >= 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_numbers_of_a_gpu_are_those_of_the_package(starter: Starter) -> None:
    assert_numbers_agree(starter, choose_runtime(ModelsConfig(device="cuda:0", precision="fp32")))


def test_numbers_agree_on_a_cpu_as_they_shall_on_a_gpu(starter: Starter) -> None:
    assert_numbers_agree(starter, Runtime("cpu", "fp32"))


def assert_numbers_agree(starter: Starter, runtime: Runtime) -> None:
    """Logits, boxes and scores are those of float64 but for float32's rounding, query by query."""
    net = load(DetectorConfig(), runtime)._net
    text = starter.texts[0]
    there = {name: value.to(runtime.device) for name, value in text.items()}
    for number in range(2):
        wanted = starter.wanted(number, 0)
        with torch.inference_mode(), wanted.selected():
            image = starter.images[number].to(runtime.device)
            logits, boxes = net.find(net.encode_images(image), net.prepare(there))
        wanted.check(logits[..., : text["encoded_text"].shape[1]].cpu(), boxes.cpu())


# The parts that are compiled trace without a break, and give the same.


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
