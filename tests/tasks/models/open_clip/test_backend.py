"""Crops resized by torch against open_clip's own transform.

CLIP's image tower neither brings anything to a GPU nor waits for it; seen without one.
"""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.float_bounds import Bounded, bounded, in_float64
from tests.tasks.models.conftest import FakeCuda, crossings_of
from vouch_labels.schemas.campaign import ScorerConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.models.open_clip import backend
from vouch_labels.tasks.models.open_clip.backend import (
    PIECE,
    OpenClipScorer,
    fits_device,
    install,
    pieces_of,
    resize_on_device,
    suits_device,
)
from vouch_labels.tasks.models.open_clip.build import build_model, find_architecture, find_checkpoint
from vouch_labels.tasks.models.registry import load_scorer
from vouch_labels.tasks.models.runtime import REFERENCE, Engine, Runtime

FP32 = Runtime("cpu", "fp32")
TEXTS = ["a red fire hydrant", "the tabby cat", "a wolf"]


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    """A CLIP of the real class, for images of 32 pixels."""
    return {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 200,
            "hf_tokenizer_name": "tokenizer",
            "width": 32,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": 3,
        },
        "preprocess": {"size": 32, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any], tiny_tokenizer: Path) -> Path:
    """scorer.json, scorer.safetensors and tokenizer/, as a bundled model has them."""
    folder = tmp_path_factory.mktemp("scorer")
    shutil.copytree(tiny_tokenizer, folder / "tokenizer")
    (folder / "scorer.json").write_text(json.dumps(tiny))
    torch.manual_seed(0)
    model = build_model(find_architecture(folder / "scorer.json"))
    save_file(model.state_dict(), folder / "scorer.safetensors")
    return folder


def config(folder: Path, **changes: Any) -> ScorerConfig:
    fields = {"checkpoint": str(folder / "scorer.safetensors"), "architecture": str(folder / "scorer.json")}
    return ScorerConfig(**(fields | changes))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> OpenClipScorer:
    scorer = load_scorer(config(folder), FP32)
    assert isinstance(scorer, OpenClipScorer)
    return scorer


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    sizes = [(32, 32), (1, 1), (1, 90), (64, 31), (200, 300), (33, 32), (17, 5)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def encoded_exactly(model: Any, transform: Any, tokenizer: Any, crops: list[np.ndarray]) -> list[Bounded]:
    """Embeddings of the crops and of TEXTS by open_clip in float64; pixels are narrowed to float32 as it does."""
    wide = in_float64(model)
    images, tokens = torch.stack([transform(Image.fromarray(crop)) for crop in crops]), tokenizer(TEXTS)
    return bounded(
        lambda: [wide.encode_image(images.double(), normalize=True), wide.encode_text(tokens, normalize=True)]
    )


@pytest.fixture(scope="module")
def wanted(folder: Path, scorer: OpenClipScorer, crops: list[np.ndarray]) -> list[Bounded]:
    """Embeddings of the crops and of TEXTS by the tiny model."""
    own = load_scorer(config(folder), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(own, OpenClipScorer)

    def pixels(image: Image.Image) -> torch.Tensor:
        fitted = torch.tensor(own._fit(np.asarray(image))).permute(2, 0, 1).float()
        return (fitted / 255 - own._mean) / own._std

    return encoded_exactly(own._model, pixels, lambda texts: own._tokenize(texts, own._text_length), crops)


def test_parity_with_open_clips_own_path(
    folder: Path, tiny: dict[str, Any], scorer: OpenClipScorer, crops: list[np.ndarray], tmp_path: Path
) -> None:
    """The same files, loaded, transformed, tokenized and encoded by open_clip alone."""
    import open_clip

    preprocess = {key: tiny["preprocess"][key] for key in ("mean", "std")}
    model_config = {key: value for key, value in tiny.items() if key != "preprocess"}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_config, "preprocess_cfg": preprocess})
    )
    shutil.copy(folder / "scorer.safetensors", tmp_path / "open_clip_model.safetensors")
    shutil.copytree(folder / "tokenizer", tmp_path, dirs_exist_ok=True)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    wanted = encoded_exactly(model, transform, tokenizer, crops)
    for one, found in zip(wanted, (scorer.embed_crops(crops), scorer.embed_texts(TEXTS)), strict=True):
        one.check(torch.from_numpy(found))
        assert one.bound < 1e-3
    assert scorer.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_open_clips_own_config_file_is_understood(folder: Path, tiny: dict[str, Any], scorer: OpenClipScorer) -> None:
    model_config = {key: value for key, value in tiny.items() if key != "preprocess"}
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": model_config, "preprocess_cfg": tiny["preprocess"]}))
    same = load_scorer(config(folder, architecture=str(path)), FP32)
    assert same.fingerprint == scorer.fingerprint
    np.testing.assert_array_equal(same.embed_texts(TEXTS), scorer.embed_texts(TEXTS))  # one way of computing


def test_unit_length_and_dtype(scorer: OpenClipScorer, crops: list[np.ndarray]) -> None:
    for vectors in (scorer.embed_crops(crops), scorer.embed_texts(TEXTS)):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == 24
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_to_embed(scorer: OpenClipScorer) -> None:
    assert scorer.embed_crops([]).shape == (0, 24)
    assert scorer.embed_texts([]).shape == (0, 24)


def test_views_do(scorer: OpenClipScorer, crops: list[np.ndarray]) -> None:
    view = crops[4][10:60, 20:90]
    assert not view.flags.c_contiguous
    np.testing.assert_array_equal(scorer.embed_crops([view]), scorer.embed_crops([view.copy()]))


def test_batches_change_nothing(
    folder: Path, scorer: OpenClipScorer, crops: list[np.ndarray], wanted: list[Bounded]
) -> None:
    small = load_scorer(config(folder, batch_size=2), FP32)
    for each in (small, scorer):
        wanted[0].check(torch.from_numpy(each.embed_crops(crops)))
        wanted[1].check(torch.from_numpy(each.embed_texts(TEXTS)))
    assert small.fingerprint == scorer.fingerprint


def test_out_of_memory_halves_the_batch(
    folder: Path,
    wanted: list[Bounded],
    crops: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tight = load_scorer(config(folder), FP32)
    assert isinstance(tight, OpenClipScorer)
    plain: Any = tight._model.encode_image

    def encode_image(images: torch.Tensor, normalize: bool) -> torch.Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return plain(images, normalize=normalize)

    monkeypatch.setattr(tight._model, "encode_image", encode_image)
    with caplog.at_level(logging.WARNING):
        found = tight.embed_crops(crops)
    wanted[0].check(torch.from_numpy(found))
    assert "models.scorer.batch_size" in caplog.text


def test_texts_are_embedded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = load_scorer(config(folder), FP32)
    assert isinstance(fresh, OpenClipScorer)
    asked: list[int] = []
    plain = fresh._model.encode_text
    monkeypatch.setattr(
        fresh._model, "encode_text", lambda tokens, normalize: asked.append(len(tokens)) or plain(tokens, normalize)
    )
    first = fresh.embed_texts([TEXTS[0], TEXTS[1], TEXTS[0]])
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(fresh.embed_texts(TEXTS)[:2], first[:2])  # remembered, not computed again
    assert asked == [2, 1]


def test_too_long_a_text_is_refused(scorer: OpenClipScorer) -> None:
    fits = " ".join(["cat"] * 14)  # with start and end the window's 16
    scorer.embed_texts([fits])
    with pytest.raises(UserError, match=r"cat cat.*more than the 16 tokens that models\.scorer reads"):
        scorer.embed_texts(["dog", f"{fits} cat"])


def test_too_long_a_text_for_open_clips_own_tokenizer(folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    own = tiny | {"text_cfg": {"context_length": 8, "width": 16, "heads": 2, "layers": 1}}
    (tmp_path / "own.json").write_text(json.dumps(own))
    torch.manual_seed(1)
    model = build_model(find_architecture(tmp_path / "own.json"))
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    fields = {"checkpoint": str(tmp_path / "own.safetensors"), "architecture": str(tmp_path / "own.json")}
    scorer = load_scorer(ScorerConfig(**fields), FP32)
    assert scorer.embed_texts(["one two three four five six"]).shape == (1, 24)
    with pytest.raises(UserError, match="more than the 8 tokens"):
        scorer.embed_texts(["one two three four five six seven"])


def test_bf16_is_near(folder: Path, scorer: OpenClipScorer, crops: list[np.ndarray]) -> None:
    half = load_scorer(config(folder), Runtime("cpu", "bf16"))
    found = half.embed_crops(crops)
    assert found.dtype == np.float32
    assert ((found * scorer.embed_crops(crops)).sum(axis=1) > 0.99).all()
    assert not np.array_equal(found, scorer.embed_crops(crops))
    assert half.fingerprint != scorer.fingerprint


def test_broken_weights_show_as_nan(folder: Path, tmp_path: Path, crops: list[np.ndarray]) -> None:
    state = load_file(folder / "scorer.safetensors")
    state["visual.proj"] = torch.full_like(state["visual.proj"], torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    broken = load_scorer(config(folder, checkpoint=str(tmp_path / "nan.safetensors")), FP32)
    assert np.isnan(broken.embed_crops(crops[:1])).all()


def test_fingerprint_follows_weights_and_preprocessing(
    folder: Path, tiny: dict[str, Any], scorer: OpenClipScorer, tmp_path: Path
) -> None:
    state = load_file(folder / "scorer.safetensors")
    state["logit_scale"] += 1
    save_file(state, tmp_path / "other.safetensors")
    other = load_scorer(config(folder, checkpoint=str(tmp_path / "other.safetensors")), FP32)
    assert other.fingerprint != scorer.fingerprint
    squashed = tiny | {"preprocess": tiny["preprocess"] | {"resize_mode": "squash"}}
    path = folder / "squashed.json"
    path.write_text(json.dumps(squashed))
    assert load_scorer(config(folder, architecture=str(path)), FP32).fingerprint != scorer.fingerprint


def test_torch_files_and_wrappings(folder: Path, scorer: OpenClipScorer, tmp_path: Path) -> None:
    """As open_clip's training script writes them."""
    state = {f"module.{name}": value for name, value in load_file(folder / "scorer.safetensors").items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    same = load_scorer(config(folder, checkpoint=str(tmp_path / "epoch_3.pt")), FP32)
    np.testing.assert_array_equal(same.embed_texts(TEXTS), scorer.embed_texts(TEXTS))  # one way of computing


def test_older_layouts(folder: Path, tiny: dict[str, Any], scorer: OpenClipScorer, wanted: list[Bounded]) -> None:
    """A text tower of its own reads checkpoints from before there was one, and a scale of another shape."""
    path = folder / "custom.json"
    path.write_text(json.dumps(tiny | {"custom_text": True, "init_logit_bias": -10, "nonscalar_logit_scale": True}))
    custom = load_scorer(config(folder, architecture=str(path)), FP32)
    wanted[1].check(torch.from_numpy(custom.embed_texts(TEXTS)))
    assert custom.logit_scale == pytest.approx(scorer.logit_scale)


def refused(config: ScorerConfig) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_scorer(config, FP32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_file(folder: Path) -> None:
    assert "no file" in refused(config(folder, checkpoint=str(folder / "none.safetensors")))


def test_damaged_file(folder: Path, tmp_path: Path) -> None:
    data = (folder / "scorer.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    assert "damaged" in refused(config(folder, checkpoint=str(tmp_path / "cut.safetensors")))


def test_other_architecture(folder: Path, tiny: dict[str, Any]) -> None:
    path = folder / "wider.json"
    path.write_text(json.dumps(tiny | {"vision_cfg": tiny["vision_cfg"] | {"width": 48}}))
    assert "another architecture" in refused(config(folder, architecture=str(path)))
    path.write_text(json.dumps(tiny | {"vision_cfg": tiny["vision_cfg"] | {"image_size": 48}}))
    assert "another architecture" in refused(config(folder, architecture=str(path)))


def test_no_architecture(folder: Path) -> None:
    assert "nothing says which model" in refused(config(folder, architecture=None))


def test_unknown_architecture(folder: Path) -> None:
    assert "did you mean ViT-B-32" in refused(config(folder, architecture="ViT-B-33"))
    assert "open_clip.list_models()" in refused(config(folder, architecture="qqq"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"embed_dim": 3, "vision_cfg": 1, "text_cfg": 2}', '{"model_cfg": 3}']
)
def test_architecture_file_that_says_nothing(folder: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert "describes no open_clip model" in refused(config(folder, architecture=str(path)))


def test_architecture_that_cannot_be_built(folder: Path, tiny: dict[str, Any]) -> None:
    path = folder / "unbuildable.json"
    path.write_text(json.dumps(tiny | {"vision_cfg": {"what": 1}}))
    assert "cannot build" in refused(config(folder, architecture=str(path)))


def test_towers_of_timm_and_transformers_fetch_no_base_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertConfig

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertConfig(vocab_size=200, **sizes).save_pretrained(tmp_path / "bert")
    described = {
        "embed_dim": 12,
        "vision_cfg": {"timm_model_name": "resnet10t", "timm_model_pretrained": True, "image_size": 64},
        "text_cfg": {
            "hf_model_name": str(tmp_path / "bert"),
            "hf_tokenizer_name": str(folder / "tokenizer"),
            "hf_pooler_type": "mean_pooler",
            "context_length": 16,
        },
    }
    (tmp_path / "scorer.json").write_text(json.dumps(described))
    save_file(build_model(find_architecture(tmp_path / "scorer.json")).state_dict(), tmp_path / "scorer.safetensors")
    scorer = load_scorer(config(tmp_path), FP32)
    assert scorer.embed_texts(TEXTS).shape == (3, 12)
    assert scorer.embed_crops([np.zeros((9, 9, 3), np.uint8)]).shape == (1, 12)


def test_missing_tokenizer(folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    path = tmp_path / "scorer.json"
    path.write_text(json.dumps(tiny))
    assert "the tokenizer tokenizer of" in refused(config(folder, architecture=str(path)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub client's cache with one published model in it, and no network."""
    commit = "a" * 40
    repository = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repository / "snapshots" / commit


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clips_own_names(hub: Path, file: str) -> None:
    (hub / file).write_bytes(b"weights")
    weights = find_checkpoint(ScorerConfig(checkpoint="ViT-B-32/laion2b_s34b_b79k"))
    assert weights.path.read_bytes() == b"weights"
    assert weights.path.name == file
    assert weights.architecture == "ViT-B-32/laion2b_s34b_b79k"


def test_published_model_that_is_not_here(hub: Path) -> None:
    text = refused(ScorerConfig(checkpoint="ViT-B-32/laion2b_s34b_b79k"))
    assert "open_clip_model.safetensors is not on this machine" in text


def test_unknown_tag_names_those_there_are() -> None:
    text = refused(ScorerConfig(checkpoint="ViT-B-32/laion9b"))
    assert "no checkpoint 'laion9b' of ViT-B-32" in text
    assert "laion2b_s34b_b79k" in text


def test_tag_brings_its_preprocessing_and_activation() -> None:
    architecture = find_architecture("ViT-B-32/openai")
    assert architecture.model["quick_gelu"] is True
    assert architecture.text_length == 77
    siglip = find_architecture("ViT-B-16-SigLIP/webli")
    assert siglip.preprocess["mean"] == (0.5, 0.5, 0.5)
    assert siglip.preprocess["resize_mode"] == "squash"
    assert find_architecture("ViT-B-32").preprocess == {}


@pytest.mark.slow
def test_full_size_model_by_its_name(hub: Path, crops: list[np.ndarray]) -> None:
    """ViT-B-32 with random weights under the published name, through the public path, beside open_clip's own."""
    import open_clip

    torch.manual_seed(2)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32")
    model.eval()
    save_file(model.state_dict(), hub / "open_clip_model.safetensors")
    scorer = load_scorer(ScorerConfig(checkpoint="ViT-B-32/laion2b_s34b_b79k"), FP32)
    wanted = encoded_exactly(model, transform, open_clip.get_tokenizer("ViT-B-32"), crops)
    for one, found in zip(wanted, (scorer.embed_crops(crops), scorer.embed_texts(TEXTS)), strict=True):
        one.check(torch.from_numpy(found))
        assert one.bound < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu(folder: Path, scorer: OpenClipScorer, crops: list[np.ndarray], wanted: Any) -> None:
    exact = load_scorer(config(folder), Runtime("cuda:0", "fp32"))
    # Crops are resized on the device, to within two levels of 255 of Pillow.
    assert ((exact.embed_crops(crops) * scorer.embed_crops(crops)).sum(axis=1) > 0.99).all()
    wanted[1].check(torch.from_numpy(exact.embed_texts(TEXTS)))
    half = load_scorer(config(folder), Runtime("cuda:0", "bf16"))
    assert ((half.embed_crops(crops) * scorer.embed_crops(crops)).sum(axis=1) > 0.99).all()


SAMPLES = Path(__file__).parents[4] / "starter" / "samples"


@pytest.fixture(scope="module")
def scene_crops() -> list[np.ndarray]:
    names = [entry["file_name"] for entry in json.loads((SAMPLES / "ground_truth.json").read_text())["images"][:4]]
    images = [np.asarray(Image.open(SAMPLES / name).convert("RGB")) for name in names]
    spans = [(0, 0, 64, 64), (3, 5, 40, 200), (10, 20, 220, 31), (50, 50, 51, 51), (0, 0, 250, 250), (7, 9, 72, 74)]
    return [image[top:bottom, left:right] for image in images for top, left, bottom, right in spans]


def test_pixels_are_within_two_levels_and_similarities_near(scene_crops):
    scorer = load_scorer(ScorerConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(scorer, OpenClipScorer)
    expected = torch.from_numpy(np.stack([scorer._fit(crop) for crop in scene_crops])).permute(0, 3, 1, 2).float()
    found = resize_on_device(scene_crops, 64, "cpu", scorer._fit)
    assert (found - expected).abs().max() <= 2
    assert (found - expected).abs().mean() < 0.1
    vectors = [np.stack(scorer._encode(pixels)) for pixels in (found, expected)]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.9995


def unused(crop):
    raise AssertionError


@pytest.mark.parametrize("threaded", [0, 1 << 30])
def test_many_bytes_of_crops_go_to_the_device_in_pieces(monkeypatch, scene_crops, threaded):
    whole = resize_on_device(scene_crops, 64, "cpu", unused)
    packed = []
    pack = backend._pack
    monkeypatch.setattr(backend, "PIECE", 100_000)
    monkeypatch.setattr(backend, "THREADED", threaded)
    monkeypatch.setattr(backend, "_pack", lambda *given, **how: packed.append(pack(*given, **how)) or packed[-1])
    assert torch.equal(resize_on_device(scene_crops, 64, "cpu", unused), whole)
    assert len(packed) > 3
    assert max(len(piece) for piece in packed if len(piece) != 250 * 250 * 3) <= 100_000
    assert sum(len(piece) for piece in packed) == sum(crop.size for crop in scene_crops)


def test_a_thousand_crops_of_twelve_megapixels_are_pinned_a_few_at_a_time():
    pieces = list(pieces_of([3 * 4000 * 3000] * 1024, PIECE))
    assert [place for piece in pieces for place in piece] == list(range(1024))
    assert {len(piece) for piece in pieces} == {7, 2}


@given(st.lists(st.integers(1, 100)), st.integers(1, 150))
def test_pieces_are_whole_and_as_large_as_they_may_be(sizes, most):
    pieces = list(pieces_of(sizes, most))
    assert [place for piece in pieces for place in piece] == list(range(len(sizes)))
    held = [sum(sizes[place] for place in piece) for piece in pieces]
    assert all(total <= most or len(piece) == 1 for total, piece in zip(held, pieces, strict=True))
    assert all(total + sizes[piece.stop] > most for total, piece in zip(held, pieces[:-1], strict=False))


@pytest.mark.parametrize("shape", [(3100, 3050), (3050, 4000), (2, 200), (200, 2)])
def test_crops_that_the_device_s_kernel_refuses_or_would_blow_up_stay_on_the_host(scene_crops, shape):
    rows = np.arange(shape[0], dtype=np.uint8)[:, None, None]
    odd = np.broadcast_to(rows, (*shape, 3)) + np.arange(shape[1], dtype=np.uint8)[:, None]
    seen = []

    def fit(crop):
        seen.append(crop)
        return np.full((64, 64, 3), 7, np.uint8)

    found = resize_on_device([scene_crops[0], odd, scene_crops[1]], 64, "cpu", fit)
    assert [crop is odd for crop in seen] == [True]
    assert (found[1] == 7).all()
    assert torch.equal(found[[0, 2]], resize_on_device(scene_crops[:2], 64, "cpu", unused))
    assert torch.equal(resize_on_device([odd], 64, "cpu", fit), found[1:2])


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([32, 64, 224, 336]))
def test_what_the_device_is_given_fits_its_shared_memory(height, width, side):
    rows, columns = backend._size(height, width, side)
    scale = max(height / rows, width / columns)
    if suits_device(height, width, side):
        assert 65 * (2 * math.ceil(2 * scale) + 1) * 4 <= 48 << 10
        assert rows * columns <= 64 * side**2
    else:
        assert scale > 40 or max(height, width) > 63 * min(height, width)


def test_a_cpu_keeps_pillow(scene_crops):
    scorers = [load_scorer(ScorerConfig(), Runtime("cpu", "fp32", engine)) for engine in (Engine(), REFERENCE)]
    assert scorers[0].fingerprint == scorers[1].fingerprint
    assert not vars(scorers[0])["_on_device"]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({}, True), ({"size": (64, 64)}, True), ({"size": (64, 32)}, False), ({"interpolation": "bilinear"}, False)],
)
def test_only_the_usual_preprocessing_is_done_on_a_gpu(changes, fits):
    from open_clip.transform import PreprocessCfg

    preprocess = PreprocessCfg(**({"size": 64} | changes))
    assert fits_device(preprocess, Runtime("cuda:0", "fp32")) == fits
    assert not fits_device(preprocess, Runtime("cuda:0", "fp32", REFERENCE))
    assert not fits_device(preprocess, Runtime("cpu", "fp32"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_as_a_cpu(scene_crops):
    scene_crops = [*scene_crops, np.tile(scene_crops[4], (13, 16, 1)), np.tile(scene_crops[4], (1, 70, 1))]
    on_gpu, on_cpu = (load_scorer(ScorerConfig(), Runtime(device, "fp32")) for device in ("cuda:0", "cpu"))
    assert (on_gpu.embed_crops(scene_crops) * on_cpu.embed_crops(scene_crops)).sum(axis=1).min() > 0.9995
    assert on_gpu.fingerprint != on_cpu.fingerprint


def test_nothing_crosses_between_crops_and_features():
    scorer = load_scorer(ScorerConfig(), Runtime("cpu", "fp32", REFERENCE))
    assert isinstance(scorer, OpenClipScorer)
    cuda = FakeCuda()
    install(scorer._model, Runtime("cuda:0", "fp32"))
    cuda.model(scorer._model)
    mean, std = cuda.tensors((scorer._mean, scorer._std))
    with cuda.mode:
        crops = torch.zeros(3, 3, scorer._side, scorer._side, device="cuda")

        def forward():
            features = scorer._model.encode_image((crops / 255 - mean) / std, normalize=False)
            assert features.device == torch.device("cuda", 0)

        assert crossings_of(forward) == []
