"""The GroundingDINO backend: built from an architecture and a checkpoint, and what it finds."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.float_bounds import in_float64
from tests.tasks.models.groundingdino.conftest import wanted_of
from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.models.groundingdino import build
from vouch_labels.tasks.models.groundingdino.backend import GroundingDino, load
from vouch_labels.tasks.models.groundingdino.build import Resize, build_groundingdino, read_architecture
from vouch_labels.tasks.models.groundingdino.fast.transformer import Selection
from vouch_labels.tasks.models.groundingdino.forward import (
    encode_text,
    least_shape,
    normalise,
    resize_image,
    resized_shape,
)
from vouch_labels.tasks.models.registry import Phrase, Pixels, RawDetections, load_detector
from vouch_labels.tasks.models.runtime import REFERENCE, Runtime
from vouch_labels.tasks.models.tokens import plain_text

Make = Callable[..., DetectorConfig]

CPU = Runtime("cpu", "fp32")
TEXTS = ["fire", "fire hydrant", "hot dog", "cat", "the red truck"]


def phrases_of(texts: list[str]) -> list[Phrase]:
    return [Phrase(text, index) for index, text in enumerate(texts)]


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(config: Make) -> GroundingDino:
    loaded = load_detector(config(), CPU)
    assert isinstance(loaded, GroundingDino)
    return loaded


@pytest.fixture(scope="module")
def reference(config: Make) -> GroundingDino:
    return load(config(), Runtime("cpu", "fp32", REFERENCE))


def by_the_package(detector: GroundingDino, image: Pixels, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (Q, 4) xyxy in pixels and scores (Q, P), from the package's own forward, one image and one caption."""
    model = detector._model
    height, width = image.shape[:2]
    shape = resized_shape(height, width, detector._architecture.resize)
    pixels = normalise(torch.tensor(resize_image(image, shape))[None], shape)
    caption = " . ".join(plain_text(text) for text in texts) + " ."
    with torch.no_grad():
        answer = model(pixels, captions=[caption])
    encoded = model.tokenizer(caption, return_offsets_mapping=True)
    scores, place = [], 0
    for text in texts:
        stop = place + len(plain_text(text))
        owned = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a >= place and b <= stop and b > a]
        scores.append(answer["pred_logits"][0][:, owned].sigmoid().amax(1).numpy())
        place = stop + 3
    x, y, w, h = answer["pred_boxes"][0].numpy().T
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * [width, height, width, height]
    return np.clip(boxes, 0, [width, height, width, height]), np.stack(scores, axis=1)


Close = Callable[[RawDetections, np.ndarray, np.ndarray], None]


@pytest.fixture(scope="module")
def assert_close(reference: GroundingDino) -> Close:
    """Asserts that boxes and scores of this model in float32 are equal but for the rounding of both sides."""
    exact, text = in_float64(reference._model), reference._ask(tuple(TEXTS))[0].text
    scores = boxes = 0.0
    for seed, (height, width) in enumerate([(70, 90), (64, 64), (120, 64)]):
        shape = resized_shape(height, width, reference._architecture.resize)
        pixels = torch.tensor(resize_image(picture(height, width, seed), shape))[None]
        wanted = wanted_of(exact, normalise(pixels, shape), text)
        scores, boxes = max(scores, wanted.scores.bound), max(boxes, wanted.boxes.bound)
        best = wanted.selection.exact
        assert (best[:, :-1] - best[:, 1:]).min() > 2 * wanted.selection.bound, "cells that rounding may exchange"
    assert scores < 1e-3

    def close(ours: RawDetections, wanted_boxes: np.ndarray, wanted_scores: np.ndarray) -> None:
        # Twice, as both sides round, and twice, as other pictures may be somewhat harder; a side is half a width away.
        np.testing.assert_allclose(ours.scores, wanted_scores, rtol=0, atol=4 * scores)
        np.testing.assert_allclose(ours.boxes, wanted_boxes, rtol=0, atol=4 * 1.5 * boxes * wanted_boxes.max())

    return close


def test_equals_the_package_s_own_forward(
    detector: GroundingDino, reference: GroundingDino, assert_close: Close
) -> None:
    images = [picture(70, 90, 1), picture(70, 90, 2), picture(120, 64, 3)]
    found = detector.detect(images, phrases_of(TEXTS), 0.0)
    for image, ours in zip(images, found, strict=True):
        assert_close(ours, *by_the_package(reference, image, TEXTS))
    assert np.ptp(found[0].scores) > 0.05
    assert np.ptp(found[0].boxes) > 5


def test_scores_below_the_least_are_left_out(detector: GroundingDino) -> None:
    image = picture(70, 90)
    everything = detector.detect([image], phrases_of(TEXTS), 0.0)[0]
    least = float(np.median(everything.scores.max(axis=1)))
    some = detector.detect([image], phrases_of(TEXTS), least)[0]
    keep = everything.scores.max(axis=1) >= least
    assert 0 < keep.sum() < len(keep)
    np.testing.assert_array_equal(some.boxes, everything.boxes[keep])
    np.testing.assert_array_equal(some.scores, everything.scores[keep])
    assert detector.detect([image], phrases_of(TEXTS), 1.0)[0].boxes.shape == (0, 4)


def test_order_and_company_do_not_matter(detector: GroundingDino, config: Make, assert_close: Close) -> None:
    shapes = [(70, 90), (64, 64), (70, 90), (200, 90), (64, 64), (70, 90)]
    images = [picture(height, width, seed) for seed, (height, width) in enumerate(shapes)]
    together = detector.detect(images, phrases_of(TEXTS), 0.0)
    backwards = detector.detect(images[::-1], phrases_of(TEXTS), 0.0)[::-1]
    alone = load(config(batch_size=1), CPU).detect(images, phrases_of(TEXTS), 0.0)
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert_close(a, b.boxes, b.scores)
        assert_close(a, c.boxes, c.scores)


def test_asking_again_gives_the_same(detector: GroundingDino) -> None:
    image = picture(70, 90)
    first = detector.detect([image], phrases_of(TEXTS), 0.0)[0]
    for number in range(6):  # more sets of phrases than are remembered
        detector.detect([image], phrases_of(["dog", f"car {number}"]), 0.0)
    again = detector.detect([image], phrases_of(TEXTS), 0.0)[0]
    # To the bit: the same call on the same shapes.
    np.testing.assert_array_equal(first.scores, again.scores)


def test_three_hundred_phrases_equal_their_passes_asked_alone(
    detector: GroundingDino, reference: GroundingDino, assert_close: Close
) -> None:
    from vouch_labels.tasks.models.prompts import pack_captions

    texts = [f"{colour} {thing} {n}" for n in range(25) for colour in ("red", "green", "blue") for thing in "abcd"]
    image = picture(64, 64)
    found = detector.detect([image], phrases_of(texts), 0.0)[0]
    captions = pack_captions(texts, detector._model.tokenizer, 256)
    assert len(captions) > 3
    assert found.scores.shape == (20 * len(captions), 300)
    for number, caption in enumerate(captions):
        rows = slice(20 * number, 20 * (number + 1))
        columns = list(caption.phrases)
        boxes, scores = by_the_package(reference, image, [texts[index] for index in columns])
        assert_close(RawDetections(found.boxes[rows], found.scores[rows][:, columns]), boxes, scores)
        assert not np.delete(found.scores[rows], columns, axis=1).any()


def test_equal_phrases_have_equal_scores(detector: GroundingDino) -> None:
    found = detector.detect([picture(64, 64)], phrases_of(["dog", "cat", "Dog."]), 0.0)[0]
    np.testing.assert_array_equal(found.scores[:, 0], found.scores[:, 2])
    assert not np.array_equal(found.scores[:, 0], found.scores[:, 1])


def test_boxes_are_pixels_of_the_image_given(detector: GroundingDino) -> None:
    for shape in [(40, 400), (400, 40), (1, 1), (3, 900), (64, 64)]:
        boxes = detector.detect([picture(*shape)], phrases_of(TEXTS), 0.0)[0].boxes
        assert boxes.dtype == np.float32
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= shape[1]).all()
        assert (boxes[:, [1, 3]] <= shape[0]).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


def test_infinite_numbers_of_one_image_stay_its_own(
    detector: GroundingDino, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assert_close: Close
) -> None:
    from vouch_labels.tasks.models.groundingdino import backend

    def poisoned(images: torch.Tensor, least: tuple[int, int]) -> torch.Tensor:
        pixels = normalise(images, least)
        pixels[images.float().mean((1, 2, 3)) > 250] = torch.nan
        return pixels

    images = [picture(64, 64, 0), np.full((64, 64, 3), 255, np.uint8), picture(64, 64, 2)]
    whole = detector.detect(images, phrases_of(TEXTS), 0.0)
    monkeypatch.setattr(backend, "normalise", poisoned)
    found = detector.detect(images, phrases_of(TEXTS), 0.0)
    assert np.isnan(found[1].scores).all()
    assert found[1].scores.shape == (1, len(TEXTS))
    for index in (0, 2):
        assert_close(found[index], whole[index].boxes, whole[index].scores)
    assert capsys.readouterr().out == ""


def test_nothing_to_do(detector: GroundingDino) -> None:
    assert detector.detect([], phrases_of(TEXTS), 0.3) == []
    empty = detector.detect([picture(64, 64)], [], 0.3)[0]
    assert (empty.boxes.shape, empty.scores.shape) == ((0, 4), (0, 0))


def test_bf16_is_near_fp32(detector: GroundingDino, config: Make) -> None:
    image = picture(70, 90)
    exact = detector.detect([image], phrases_of(TEXTS), 0.0)[0]
    fast = load(config(), Runtime("cpu", "bf16"))
    near = fast.detect([image], phrases_of(TEXTS), 0.0)[0]
    assert near.scores.dtype == np.float32
    assert len(np.unique(near.boxes)) > 0.9 * len(np.unique(exact.boxes))  # bf16 coordinates would coincide
    assert abs(np.sort(near.scores[:, 0]).mean() - np.sort(exact.scores[:, 0]).mean()) < 0.02
    assert fast.fingerprint != detector.fingerprint


def test_too_long_a_phrase_is_a_user_error(detector: GroundingDino) -> None:
    detector.check(phrases_of(TEXTS))
    with pytest.raises(UserError, match="the text window holds 253"):
        detector.check(phrases_of(["cat", "dog " * 254]))


def test_fingerprint_follows_what_results_depend_on(detector: GroundingDino, config: Make, saved: Path) -> None:
    assert load(config(batch_size=3), CPU).fingerprint == detector.fingerprint
    path = saved.parent / "larger.json"
    path.write_text((saved / "tiny.json").read_text().replace('"short_side": 64', '"short_side": 96'))
    try:
        assert load(config(architecture=str(path)), CPU).fingerprint != detector.fingerprint
    finally:
        path.unlink()


def test_tokenizer_with_too_many_pieces(config: Make, tiny_tokenizer: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_tokenizer))
    tokenizer.add_tokens([f"new{number}" for number in range(200)])
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match="pieces and the checkpoint 200; give the tokenizer that belongs to it"):
        load(config(text_encoder=str(tmp_path)), CPU)


def test_checkpoint_of_another_architecture(config: Make) -> None:
    with pytest.raises(CheckpointError, match=r"of another architecture than swin_t \(\d+ of \d+ tensors fit; first"):
        load(config(architecture="swin_t"), CPU)
    with pytest.raises(CheckpointError, match="the checkpoint does not say its own"):
        load(config(architecture=None), CPU)


def test_bundled_layout_is_found_without_a_word(
    detector: GroundingDino, saved: Path, tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from vouch_labels.tasks.models import checkpoints

    state = {name: value.clone() for name, value in detector._model.state_dict().items()}
    save_file(state, tmp_path / "detector.safetensors")
    sha = hashlib.sha256((tmp_path / "detector.safetensors").read_bytes()).hexdigest()
    (tmp_path / "checksums.json").write_text(json.dumps({"detector.safetensors": sha}))
    shutil.copy(saved / "tiny.json", tmp_path / "detector.json")
    shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    monkeypatch.setattr(checkpoints, "STARTER", tmp_path)
    bundled = load(DetectorConfig(), CPU)
    image = picture(70, 90)
    ours, theirs = (each.detect([image], phrases_of(TEXTS), 0.0)[0] for each in (bundled, detector))
    np.testing.assert_array_equal(ours.scores, theirs.scores)


@pytest.mark.slow
def test_full_size_swin_t_in_the_official_layout(
    tiny_tokenizer: Path, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real size, with the wrapping and the extra names of the published file, through the public path."""
    import dataclasses

    from vouch_labels.tasks.models.checkpoints import OFFICIAL
    from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture

    model = build_groundingdino(read_architecture("swin_t").model_dump(), tiny_tokenizer)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    state["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    state["module.label_enc.weight"] = torch.zeros(2001, 256)
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path))
    path = tmp_path / "checkpoints" / "groundingdino_swint_ogc.pth"
    path.parent.mkdir()
    torch.save({"model": state}, path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    name = "groundingdino_swint_ogc"
    monkeypatch.setitem(OFFICIAL, name, dataclasses.replace(OFFICIAL[name], sha256=sha))
    detector = load(DetectorConfig(checkpoint=name, text_encoder=str(tiny_tokenizer)), CPU)
    image = picture(480, 640)
    chosen = []
    best = Selection.best

    def remember(self: Selection, values: torch.Tensor) -> torch.Tensor:
        chosen.append(best(self, values))
        return chosen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Selection, "best", remember)
        found = detector.detect([image], phrases_of(TEXTS), 0.0)[0]
        # Random weights leave near-ties among the proposals, so both sides go on from the same ones.
        patch.setattr(torch, "topk", lambda values, k, dim: (values, chosen[-1]))
        boxes, scores = by_the_package(detector, image, TEXTS)
    # The bound of a part of the picture, as large as the decoder needs; twice that for the whole.
    pixels = normalise(torch.tensor(resize_image(image, (480, 640))[:200, :264])[None], (200, 264))
    text = encode_text(detector._model, detector._ask(tuple(TEXTS))[0].scores.caption.input_ids, "cpu")
    bounds = wanted_of(model, pixels, text)
    assert bounds.scores.bound < 0.01
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=2 * bounds.scores.bound)
    np.testing.assert_allclose(found.boxes, boxes, rtol=0, atol=2 * 1.5 * bounds.boxes.bound * 640)
    assert found.boxes.shape == boxes.shape == (900, 4)


def test_pixels_are_the_package_s_own() -> None:
    import groundingdino.datasets.transforms as package

    transform = package.Compose(
        [
            package.RandomResize([80], max_size=133),
            package.ToTensor(),
            package.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    generator = np.random.default_rng(0)
    for height, width in [(50, 60), (301, 97), (80, 80), (40, 300), (80, 100), (133, 20), (77, 77)]:
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected, _ = transform(Image.fromarray(image), None)
        shape = resized_shape(height, width, Resize(short_side=80, long_side=133))
        ours = normalise(torch.tensor(resize_image(image, shape))[None], shape)[0]
        assert torch.equal(ours, expected), (height, width)


@settings(deadline=None)
@given(height=st.integers(1, 30_000), width=st.integers(1, 30_000))
def test_shapes_keep_their_limits(height: int, width: int) -> None:
    resize = Resize()
    new = resized_shape(height, width, resize)
    assert min(new) >= 1
    assert min(new) <= 800
    assert max(new) <= 1333 * (1 + 0.5 / max(min(new) - 0.5, 0.5))  # half a pixel of the short side
    assert resized_shape(width, height, resize) == new[::-1]
    least = least_shape(new, 900)
    assert least[0] >= new[0]
    assert least[1] >= new[1]
    assert sum((least[0] // stride) * (least[1] // stride) for stride in (8, 16, 32)) >= 900


def test_growth_has_the_mean_colour() -> None:
    grown = normalise(torch.full((1, 4, 6, 3), 255, dtype=torch.uint8), (8, 6))
    assert grown.shape == (1, 3, 8, 6)
    assert (grown[:, :, 4:] == 0).all()
    assert (grown[:, :, :4] > 2).all()


def test_usual_images_are_not_grown() -> None:
    assert least_shape((800, 1333), 900) == (800, 1333)
    assert least_shape((192, 192), 30) == (192, 192)


@pytest.fixture
def described(tiny_groundingdino: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny_groundingdino))
    return path


def test_builds_and_looks(described: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_groundingdino(read_architecture(described).model_dump(), tiny_tokenizer)
    assert not model.training
    with torch.no_grad():
        answer = model(torch.rand(1, 3, 64, 96), captions=["red dog . cat ."])
    assert answer["pred_logits"].shape == (1, 20, 256)
    assert answer["pred_boxes"].shape == (1, 20, 4)
    with torch.no_grad():  # the package prints when numbers are infinite
        model(torch.full((1, 3, 64, 96), torch.inf), captions=["red dog . cat ."])
    assert capsys.readouterr().out == ""


def test_package_is_left_as_it_was(described: Path, tiny_tokenizer: Path) -> None:
    from groundingdino.models.GroundingDINO import groundingdino as package
    from groundingdino.models.GroundingDINO.backbone import backbone

    before = (package.BertModelWarper, package.get_tokenlizer.get_tokenlizer, backbone.build_swin_transformer)
    architecture = read_architecture(described).model_dump()
    models: list[torch.nn.Module] = []
    threads = [
        threading.Thread(target=lambda: models.append(build_groundingdino(architecture, tiny_tokenizer)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 4
    assert (package.BertModelWarper, package.get_tokenlizer.get_tokenlizer, backbone.build_swin_transformer) == before


def test_text_mask_keeps_phrases_apart(described: Path, tiny_tokenizer: Path) -> None:
    model = build_groundingdino(read_architecture(described).model_dump(), tiny_tokenizer)
    ids = torch.tensor([[2, 50, 18, 51, 18, 3]])
    other = torch.tensor([[2, 50, 18, 99, 18, 3]])
    mask = torch.eye(6, dtype=torch.bool)
    mask[1:3, 1:3] = mask[3:5, 3:5] = True
    places = torch.tensor([[0, 0, 1, 0, 1, 0]])
    with torch.no_grad():
        one = model.bert(input_ids=ids, attention_mask=mask[None], position_ids=places)["last_hidden_state"]
        two = model.bert(input_ids=other, attention_mask=mask[None], position_ids=places)["last_hidden_state"]
        wide = model.bert(input_ids=other, attention_mask=torch.ones(1, 6), position_ids=places)["last_hidden_state"]
    assert torch.allclose(one[:, :3], two[:, :3], atol=1e-6)
    assert not torch.allclose(one[:, 3:5], two[:, 3:5], atol=1e-3)
    assert not torch.allclose(two[:, :3], wide[:, :3], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groundingdino": {}}, "cannot be built"),
        ({"groundingdino": {"modelname": "groundingdino"}}, "cannot be built"),
        ({"bert": {"no_such_size": 3, "hidden_size": 31, "num_attention_heads": 4}}, "cannot be built"),
    ],
)
def test_impossible_architectures(described: Path, tiny_tokenizer: Path, change: dict[str, Any], message: str) -> None:
    architecture = {**read_architecture(described).model_dump(), **change}
    with pytest.raises(CheckpointError, match=message) as raised:
        build_groundingdino(architecture, tiny_tokenizer)
    assert "\n" not in str(raised.value)


def test_published_architectures_come_from_the_package() -> None:
    small, base = read_architecture("swin_t"), read_architecture("swin_b")
    assert small.groundingdino["backbone"] == "swin_T_224_1k"
    assert base.groundingdino["backbone"] == "swin_B_384_22k"
    assert (small.resize.short_side, small.resize.long_side) == (800, 1333)
    assert small.swin is None


def test_json_fields_that_are_absent_are_those_of_swin_t(described: Path) -> None:
    architecture = read_architecture(described)
    assert architecture.groundingdino["num_queries"] == 20
    assert architecture.groundingdino["two_stage_type"] == "standard"
    assert architecture.swin is not None
    assert architecture.swin.depths == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "the file: Input should be a valid dictionary"),
        ('{"swim": {}}', "swim: Extra inputs are not permitted"),
        ('{"swin": {"embed_dim": 0}}', r"swin\.embed_dim"),
        ('{"groundingdino": {"num_querys": 3}}', r"groundingdino\.num_querys is no field"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message) as raised:
        read_architecture(path)
    assert "\n" not in str(raised.value)


def test_no_or_unknown_architecture(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say its own; set swin_t, swin_b or a JSON file"):
        read_architecture(None)
    with pytest.raises(CheckpointError, match="'swin_x' is unknown"):
        read_architecture("swin_x")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_architecture(tmp_path / "gone.json")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    described: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = read_architecture(described).model_dump()
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    for attempt in (lambda: build_groundingdino(architecture, tiny_tokenizer), lambda: read_architecture("swin_t")):
        with pytest.raises(UserError, match=r"pip install --no-deps groundingdino-py==0\.4\.0"):
            attempt()
