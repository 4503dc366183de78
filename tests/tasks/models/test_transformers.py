import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import huggingface_hub.constants
import numpy as np
import pytest
import torch

from tests.float_bounds import bounded
from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.models.registry import Phrase, Pixels, RawDetections, load_detector
from vouch_labels.tasks.models.runtime import Runtime

CPU = Runtime("cpu", "fp32")
TEXTS = ["fire", "fire hydrant", "hot dog", "the red truck"]
FAMILIES = ["grounding-dino", "mm-grounding-dino", "owlvit", "owlv2"]


def phrases_of(texts: list[str]) -> list[Phrase]:
    return [Phrase(text, index) for index, text in enumerate(texts)]


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bert_tokenizer() -> Any:
    """With the special tokens at the numbers that transformers' Grounding DINO has written into it."""
    from transformers import BertTokenizerFast

    pieces = [f"[unused{number}]" for number in range(1100)]
    pieces[0], pieces[100], pieces[101], pieces[102], pieces[103] = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    pieces[1012], pieces[1029] = ".", "?"
    pieces[200:212] = ["fire", "hydrant", "hot", "dog", "the", "red", "truck", "cat", "a", "car", "blue", "green"]
    pieces[300:336] = list(string.ascii_lowercase + string.digits)
    pieces[400:436] = ["##" + character for character in string.ascii_lowercase + string.digits]
    return BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}, do_lower_case=True)


def clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    characters = list(string.ascii_lowercase + string.digits)
    pieces = ["!", *characters, *(character + "</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="!")


def save_grounding(kind: str, folder: Path) -> None:
    import transformers as tf

    name = "GroundingDino" if kind == "grounding-dino" else "MMGroundingDino"
    swin = tf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = tf.BertConfig(
        vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=256,
    )  # fmt: skip
    config = getattr(tf, f"{name}Config")(
        backbone_config=swin, text_config=text, num_queries=15, encoder_layers=1, encoder_ffn_dim=64,
        encoder_attention_heads=4, decoder_layers=2, decoder_ffn_dim=64, decoder_attention_heads=4, d_model=256,
        encoder_n_points=2, decoder_n_points=2,
    )  # fmt: skip
    model = fresh(getattr(tf, f"{name}ForObjectDetection"), config)
    processor = tf.GroundingDinoProcessor(
        tf.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}), bert_tokenizer()
    )
    save(model, processor, folder)


def save_owl(kind: str, folder: Path) -> None:
    import transformers as tf

    name = "Owlv2" if kind == "owlv2" else "OwlViT"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = getattr(tf, f"{name}Config")(
        text_config={**sizes, "vocab_size": 200, "max_position_embeddings": 16, "eos_token_id": 74, "bos_token_id": 73},
        vision_config={**sizes, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    model = fresh(getattr(tf, f"{name}ForObjectDetection"), config)
    images = getattr(tf, f"{name}ImageProcessor")(size={"height": 64, "width": 64})
    processor = getattr(tf, f"{name}Processor")(images, clip_tokenizer(folder.parent / f"{kind}-tokens"))
    save(model, processor, folder)


def fresh(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind(config)


def save(model: Any, processor: Any, folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5)
            elif parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        if model.config.model_type == "grounding-dino":  # else the sigmoid of every logit is 0 or 1
            model.model.decoder.layer_norm.weight.mul_(0.1)
            model.model.decoder.layer_norm.bias.mul_(0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    (save_owl if request.param.startswith("owl") else save_grounding)(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def detector(saved: Path) -> Any:
    return load_detector(DetectorConfig(backend="transformers", checkpoint=str(saved)), CPU)


def asked_of_transformers(folder: Path, image: Pixels) -> tuple[Any, Any]:
    """The model as transformers loads it, and its inputs for TEXTS and an image as its own processor makes them."""
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    is_owl = model.config.model_type.startswith("owl")
    text = [TEXTS] if is_owl else " . ".join(TEXTS) + " ."
    options = {"padding": "max_length", "max_length": 16} if is_owl else {}
    return model, processor(images=image, text=text, return_tensors="pt", **options)


def by_transformers(folder: Path, image: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (Q, 4) in pixels and scores (Q, P) by transformers' own processor, on one image."""
    model, inputs = asked_of_transformers(folder, image)
    with torch.no_grad():
        answer = model(**inputs)
    scores = answer.logits[0].sigmoid()
    height, width = image.shape[:2]
    if not model.config.model_type.startswith("owl"):
        words = [word for text in TEXTS for word in [*text.split(), "."]]
        spans, place = [], 1
        for text in TEXTS:
            spans.append(list(range(place, place + len(text.split()))))
            place = spans[-1][-1] + 2
        assert inputs["input_ids"].shape[1] == len(words) + 2
        scores = torch.stack([scores[:, span].amax(1) for span in spans], 1)
    side = (max(height, width),) * 2 if model.config.model_type == "owlv2" else (width, height)
    x, y, w, h = answer.pred_boxes[0].numpy().T
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * [*side, *side]
    return np.clip(boxes, 0, [width, height, width, height]), scores.numpy()


Close = Callable[[RawDetections, np.ndarray, np.ndarray], None]


@pytest.fixture(scope="module")
def assert_close(saved: Path) -> Close:
    """Asserts that boxes and scores of this model in float32 are equal but for the rounding of both sides."""
    model, inputs = asked_of_transformers(saved, picture(70, 90, 1))
    exact, chosen = model.double(), []
    inputs["pixel_values"] = inputs["pixel_values"].double()

    def topk(values: torch.Tensor, count: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not chosen:
            chosen.append(values.topk(count, dim).indices)
        return values.gather(dim, chosen[0]), chosen[0]

    def answer() -> list[torch.Tensor]:
        with patch.object(torch, "topk", topk):
            found = exact(**inputs)
        return [found.logits.sigmoid().double(), found.pred_boxes.double()]

    scores, boxes = (each.bound for each in bounded(answer))
    assert scores < 1e-4

    def close(ours: RawDetections, wanted_boxes: np.ndarray, wanted_scores: np.ndarray) -> None:
        # Twice, as both sides round, and twice, as other pictures may be somewhat harder; a side is half a width away.
        np.testing.assert_allclose(ours.scores, wanted_scores, rtol=0, atol=4 * scores)
        np.testing.assert_allclose(ours.boxes, wanted_boxes, rtol=0, atol=4 * 1.5 * boxes * wanted_boxes.max())

    return close


def test_equals_transformers_own_answer(detector: Any, saved: Path, assert_close: Close) -> None:
    for image in (picture(70, 90, 1), picture(120, 64, 2)):
        boxes, scores = by_transformers(saved, image)
        found = detector.detect([image], phrases_of(TEXTS), 0.0)[0]
        assert_close(found, boxes, scores)
        assert np.ptp(found.scores) > 0.01
        assert np.ptp(found.boxes) > 5


def test_order_and_company_do_not_matter(detector: Any, saved: Path, assert_close: Close) -> None:
    images = [picture(*shape, seed) for seed, shape in enumerate([(70, 90), (64, 64), (70, 90), (90, 30)])]
    together = detector.detect(images, phrases_of(TEXTS), 0.0)
    config = DetectorConfig(backend="transformers", checkpoint=str(saved), batch_size=1)
    alone = load_detector(config, CPU).detect(images[::-1], phrases_of(TEXTS), 0.0)[::-1]
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other.boxes, other.scores)


def test_many_phrases_and_equal_ones(detector: Any) -> None:
    texts = [f"red car {number}" for number in range(120)] + ["Red  car 7"]
    found = detector.detect([picture(64, 64)], phrases_of(texts), 0.0)[0]
    assert found.scores.shape[1] == 121
    assert (found.scores.max(axis=0) > 0).all()
    np.testing.assert_array_equal(found.scores[:, 7], found.scores[:, 120])


def test_strange_shapes_and_nothing(detector: Any) -> None:
    for shape in [(1, 1), (3, 600), (600, 4), (3, 3)]:
        found = detector.detect([picture(*shape)], phrases_of(TEXTS), 0.0)[0]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array([shape[1], shape[0]] * 2)).all()
    assert detector.detect([], phrases_of(TEXTS), 0.0) == []
    assert detector.detect([picture(9, 9)], [], 0.0)[0].scores.shape == (0, 0)
    assert detector.detect([picture(64, 64)], phrases_of(TEXTS), 1.0)[0].boxes.shape == (0, 4)


def test_too_long_a_phrase(detector: Any) -> None:
    detector.check(phrases_of(TEXTS))
    detector.check([])
    with pytest.raises(UserError, match=r"'dog dog.* has \d+ tokens.*shorten it"):
        detector.check(phrases_of(["dog " * 300]))


def test_bf16_keeps_boxes_exact_to_read(detector: Any, saved: Path) -> None:
    fast = load_detector(DetectorConfig(backend="transformers", checkpoint=str(saved)), Runtime("cpu", "bf16"))
    exact = detector.detect([picture(70, 90)], phrases_of(TEXTS), 0.0)[0]
    near = fast.detect([picture(70, 90)], phrases_of(TEXTS), 0.0)[0]
    assert near.boxes.dtype == near.scores.dtype == np.float32
    assert abs(near.scores.mean() - exact.scores.mean()) < 0.02
    assert fast.fingerprint != detector.fingerprint


def refused(folder: Path | str, **changes: Any) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_detector(DetectorConfig(backend="transformers", checkpoint=str(folder), **changes), CPU)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_pinned_weights(detector: Any, saved: Path, tmp_path: Path) -> None:
    import hashlib

    right = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    config = DetectorConfig(backend="transformers", checkpoint=str(saved), sha256=right)
    assert load_detector(config, CPU).fingerprint == detector.fingerprint
    assert f"have SHA-256 {right}, not {'0' * 64}" in refused(saved, sha256="0" * 64)


def test_damaged_and_incomplete_folders(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    assert "cannot be loaded" in refused(folder)
    weights.write_bytes(data)
    state = load_file(weights)
    dropped = next(name for name in sorted(state) if "layer_norm" in name or "layernorm" in name)
    save_file({name: value for name, value in state.items() if name != dropped}, weights, {"format": "pt"})
    assert "lacks 1 of the model's tensors" in refused(folder)
    weights.unlink()
    assert "holds no *.safetensors" in refused(folder)


def test_what_is_no_zero_shot_detector(tmp_path: Path) -> None:
    import transformers as tf

    tf.BertConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "is a bert model; use one of grounding-dino" in refused(tmp_path)
    assert "finds no config.json in starter; give the folder" in refused("starter")
    assert "is one file and the backend needs all" in refused("hf://owner/repo/model.safetensors")


def test_hub_name_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "hf://owner/repo@v1 is not on this machine" in refused("hf://owner/repo@v1")
