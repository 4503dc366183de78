import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.models.registry import Phrase, Pixels, RawDetections, load_detector
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.models.trained import FAMILIES

CPU = Runtime("cpu", "fp32")
NAMES = ["heron", "Fire  hydrant", "duck"]
PHRASES = [Phrase("fire hydrant", 0), Phrase("HERON", 1), Phrase("hydrant", 0), Phrase("duck", 1, negative=True)]


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def small_model(kind: str) -> Any:
    import transformers as tf

    labels = {
        "id2label": dict(enumerate(NAMES)),
        "label2id": {**{name: place for place, name in enumerate(NAMES)}, "grey heron": 0},
    }
    small = {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 32, "encoder_attention_heads": 4,
             "decoder_layers": 2, "decoder_ffn_dim": 32, "decoder_attention_heads": 4, "num_queries": 12}  # fmt: skip
    if kind in ("detr", "conditional_detr", "deformable_detr"):
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
        several = ["stage2", "stage3", "stage4"] if kind == "deformable_detr" else ["stage4"]
        backbone = tf.ResNetConfig(**sizes, out_features=several)
        more = {"num_feature_levels": 3} if kind == "deformable_detr" else {}
        name = {"detr": "Detr", "conditional_detr": "ConditionalDetr", "deformable_detr": "DeformableDetr"}[kind]
        config = getattr(tf, f"{name}Config")(backbone_config=backbone, **labels, **small, **more)
        return getattr(tf, f"{name}ForObjectDetection")(config)
    small |= {"encoder_hidden_dim": 32, "encoder_in_channels": [16, 16, 32], "decoder_in_channels": [32, 32, 32]}
    if kind == "d_fine":
        stages = [8, 16, 16, 32]
        backbone = tf.HGNetV2Config(
            stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 16, 16], stage_mid_channels=[8] * 4,
            stage_out_channels=stages, hidden_sizes=stages, stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4,
            stage_light_block=[False] * 4, stage_kernel_size=[3] * 4, out_indices=[2, 3, 4],
        )  # fmt: skip
        return tf.DFineForObjectDetection(tf.DFineConfig(backbone_config=backbone, **labels, **small))
    backbone = tf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[2] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    name = {"rt_detr": "RTDetr", "rt_detr_v2": "RTDetrV2"}[kind]
    return getattr(tf, f"{name}ForObjectDetection")(
        getattr(tf, f"{name}Config")(backbone_config=backbone, **labels, **small)
    )


def processor_of(kind: str) -> Any:
    import transformers as tf

    if kind in ("d_fine", "rt_detr", "rt_detr_v2"):
        return tf.RTDetrImageProcessor(size={"height": 96, "width": 96})
    name = {"detr": "Detr", "conditional_detr": "ConditionalDetr", "deformable_detr": "DeformableDetr"}[kind]
    return getattr(tf, f"{name}ImageProcessor")(size={"shortest_edge": 64, "longest_edge": 128})


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, as its trainer would save it."""
    folder = tmp_path_factory.mktemp("models") / request.param
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = small_model(request.param)
        with torch.no_grad():
            for parameter in model.parameters():  # so that boxes and scores differ
                if parameter.dim() > 1:
                    parameter.copy_(torch.randn_like(parameter) * (2 / parameter[0].numel()) ** 0.5)
    model.save_pretrained(folder)
    processor_of(request.param).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(saved: Path) -> Any:
    return load_detector(DetectorConfig(backend="trained", checkpoint=str(saved)), CPU)


def by_transformers(folder: Path, image: Pixels, threshold: float) -> dict[str, np.ndarray]:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        answer = model(**processor(images=image, return_tensors="pt"))
    found = processor.post_process_object_detection(answer, threshold=threshold, target_sizes=[image.shape[:2]])[0]
    return {name: value.numpy() for name, value in found.items()}


def test_equals_the_packages_own_post_processing(detector: Any, saved: Path) -> None:
    for image in (picture(70, 90, 1), picture(120, 64, 2)):
        ours = detector.detect([image], [Phrase(name, place) for place, name in enumerate(NAMES)], 0.0)[0]
        assert np.ptp(ours.scores) > 0.01
        assert ours.boxes.shape == (12, 4)
        # Few enough that the package, which keeps as many scores as there are queries, keeps all of these.
        threshold = float(np.sort(ours.scores, axis=None)[-8])
        theirs = by_transformers(saved, image, threshold - 1e-5)
        assert len(theirs["scores"]) >= 4
        height, width = image.shape[:2]
        boxes = np.clip(theirs["boxes"], 0, [width, height, width, height])
        for score, label, box in zip(theirs["scores"], theirs["labels"], boxes, strict=True):
            near = np.abs(ours.scores[:, label] - score) < 1e-4
            assert (near & (np.abs(ours.boxes - box) < 0.05).all(axis=1)).any()


def test_order_and_company_do_not_matter(detector: Any, saved: Path) -> None:
    images = [picture(*shape, seed) for seed, shape in enumerate([(70, 90), (64, 64), (70, 90), (90, 30)])]
    together = detector.detect(images, PHRASES, 0.0)
    config = DetectorConfig(backend="trained", checkpoint=str(saved), batch_size=1)
    alone = load_detector(config, CPU).detect(images[::-1], PHRASES, 0.0)[::-1]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)


def test_texts_stand_for_classes_of_the_model(detector: Any) -> None:
    image = picture(64, 64)
    by_class = detector.detect([image], [Phrase(name, place) for place, name in enumerate(NAMES)], 0.0)[0].scores
    by_text = detector.detect([image], PHRASES, 0.0)[0].scores
    np.testing.assert_array_equal(
        by_text, np.stack([by_class[:, 1], by_class[:, 0], 0 * by_class[:, 0], by_class[:, 2]], 1)
    )
    assert detector.tokens("fire HYDRANT") == ("Fire  hydrant",)
    assert detector.tokens("Goose") == ("goose",)
    assert detector.detect([image], [], 0.0)[0].scores.shape == (0, 0)
    assert detector.detect([], PHRASES, 0.0) == []
    assert detector.detect([image], PHRASES, 1.0)[0].boxes.shape == (0, 4)


def test_a_class_that_the_model_does_not_know(detector: Any) -> None:
    detector.check(PHRASES)
    unknown = (
        "class 'bird': the trained detector does not know 'herons' or 'egret'; did you mean 'heron'? it knows heron, "
    )
    with pytest.raises(UserError, match=re.escape(unknown)):
        Detect(detector, [ClassConfig(name="bird", prompts=("herons", "egret"))], DetectorConfig())
    with pytest.raises(UserError, match="'heron' and 'grey heron' are one to the detector"):
        Detect(detector, [ClassConfig(name="heron"), ClassConfig(name="grey heron")], DetectorConfig())


def one_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def refused(folder: Path | str, **changes: Any) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_detector(DetectorConfig(backend="trained", checkpoint=str(folder), **changes), CPU)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_pinned_damaged_and_incomplete_folders(detector: Any, saved: Path, tmp_path: Path) -> None:
    right = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    pinned = load_detector(DetectorConfig(backend="trained", checkpoint=str(saved), sha256=right), CPU)
    assert pinned.fingerprint == detector.fingerprint
    assert f"have SHA-256 {right}" in refused(saved, sha256="0" * 64)
    assert "says it itself" in refused(saved, text_encoder="bert")
    assert "the trained backend finds no config.json in starter" in refused("starter")
    folder = one_of(saved, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    assert "cannot be loaded" in refused(folder)
    shutil.copy(saved / "preprocessor_config.json", folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be loaded" in refused(folder)


def test_other_files_make_another_fingerprint(detector: Any, saved: Path, tmp_path: Path) -> None:
    folder = one_of(saved, tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(
        file.read_text().replace('"height": 96', '"height": 64').replace('"shortest_edge": 64', '"shortest_edge": 48')
    )
    other = load_detector(DetectorConfig(backend="trained", checkpoint=str(folder)), CPU)
    assert other.fingerprint != detector.fingerprint


def test_bf16_keeps_boxes_exact_to_read(detector: Any, saved: Path) -> None:
    fast = load_detector(DetectorConfig(backend="trained", checkpoint=str(saved)), Runtime("cpu", "bf16"))
    exact: RawDetections = detector.detect([picture(70, 90)], PHRASES, 0.0)[0]
    near: RawDetections = fast.detect([picture(70, 90)], PHRASES, 0.0)[0]
    assert near.boxes.dtype == near.scores.dtype == np.float32
    assert abs(near.scores.mean() - exact.scores.mean()) < 0.05
    assert fast.fingerprint != detector.fingerprint


def test_another_kind_of_model(tmp_path: Path) -> None:
    import transformers as tf

    tf.BertConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "is a bert model; use one of d_fine, rt_detr_v2" in refused(tmp_path)
