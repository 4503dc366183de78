"""SAM checkpoints through the public path: resolve, read safely, build, load."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from vouch_labels.schemas.campaign import SegmenterConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.models.registry import load_segmenter
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.models.sam.build import architecture_of, build_sam

CPU = Runtime("cpu", "fp32")
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
BOXES = np.array([[10, 10, 90, 70], [0, 0, 160, 120], [100.5, 30.25, 150, 110]], dtype=np.float32)
TINY = {
    "image_encoder": {"img_size": 64, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2, "out_chans": 16},
    "prompt_encoder": {
        "embed_dim": 16,
        "image_embedding_size": [4, 4],
        "input_image_size": [64, 64],
        "mask_in_chans": 4,
    },
    "mask_decoder": {
        "transformer_dim": 16,
        "iou_head_hidden_dim": 8,
        "transformer": {"depth": 1, "embedding_dim": 16, "num_heads": 2, "mlp_dim": 16},
    },
    "pixel_mean": [100.0, 110.0, 120.0],
    "pixel_std": [50.0, 60.0, 70.0],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, Path]:
    """Architecture and checkpoint."""
    architecture, checkpoint = tmp_path / "tiny.json", tmp_path / "tiny.safetensors"
    architecture.write_text(json.dumps(TINY))
    torch.manual_seed(0)
    save_file(build_sam(architecture).state_dict(), checkpoint)
    return architecture, checkpoint


def config(checkpoint: Path, architecture: Path | str | None = None, **fields: Any) -> SegmenterConfig:
    named = None if architecture is None else str(architecture)
    return SegmenterConfig(checkpoint=str(checkpoint), architecture=named, **fields)


def test_a_described_architecture_loads_and_segments(tiny):
    architecture, checkpoint = tiny
    segmenter = load_segmenter(config(checkpoint, architecture), CPU)
    masks = segmenter.segment([IMAGE], [BOXES])[0]
    assert len(masks.rle_counts) == 3
    assert np.isfinite(masks.predicted_iou).all()
    assert ((masks.predicted_iou >= 0) & (masks.predicted_iou <= 1)).all()
    assert ((masks.stability >= 0) & (masks.stability <= 1)).all()


def test_the_fingerprint_follows_weights_architecture_and_precision(tiny, tmp_path):
    architecture, checkpoint = tiny

    def key(weights=checkpoint, described=architecture, runtime=CPU, **fields):
        return load_segmenter(config(weights, described, **fields), runtime).fingerprint

    same = key()
    assert key() == same
    assert key(batch_size=1) == same
    assert key(runtime=Runtime("cpu", "bf16")) != same

    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_file(build_sam(architecture).state_dict(), other)
    assert key(other) != same

    shifted = tmp_path / "shifted.json"
    shifted.write_text(json.dumps({**TINY, "pixel_mean": [0.0, 0.0, 0.0]}))
    assert key(described=shifted) != same


def test_normalisation_comes_from_the_description(tiny):
    architecture, _ = tiny
    sam = build_sam(architecture)
    assert sam.pixel_mean.flatten().tolist() == TINY["pixel_mean"]
    assert sam.pixel_std.flatten().tolist() == TINY["pixel_std"]
    assert {module.eps for module in sam.image_encoder.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


def test_a_checkpoint_of_another_architecture_is_refused(tiny, tmp_path):
    _, checkpoint = tiny
    deeper = tmp_path / "deeper.json"
    deeper.write_text(json.dumps({**TINY, "image_encoder": {**TINY["image_encoder"], "depth": 2}}))
    with pytest.raises(CheckpointError, match="another architecture"):
        load_segmenter(config(checkpoint, deeper), CPU)


def test_a_checkpoint_that_nothing_describes_is_refused(tiny):
    with pytest.raises(UserError, match="set it to one of vit_b, vit_l, vit_h"):
        load_segmenter(config(tiny[1]), CPU)


@pytest.mark.parametrize(("width", "name"), [(768, "vit_b"), (1024, "vit_l"), (1280, "vit_h")])
def test_official_architectures_are_told_from_their_width(width, name):
    assert architecture_of({"image_encoder.pos_embed": torch.zeros(1, 1, 1, width)}) == name


@pytest.mark.slow
def test_a_full_size_vit_b_loads_from_the_official_key_layout(tmp_path):
    """The official files are a bare state dict, as torch.save wrote it."""
    torch.manual_seed(0)
    original = sam_model_registry["vit_b"]()
    checkpoint = tmp_path / "sam_vit_b_renamed.pth"
    torch.save(original.state_dict(), checkpoint)
    assert len(original.state_dict()) == 314

    segmenter = load_segmenter(config(checkpoint), CPU)
    masks = segmenter.segment([IMAGE], [BOXES])[0]
    assert len(masks.rle_counts) == 3

    from segment_anything import SamPredictor

    predictor = SamPredictor(original)
    predictor.set_image(IMAGE)
    scaled = torch.from_numpy(predictor.transform.apply_boxes(BOXES, IMAGE.shape[:2]).astype(np.float32))
    expected, iou, _ = predictor.predict_torch(None, None, scaled, multimask_output=False)
    np.testing.assert_allclose(masks.areas, expected.sum(dim=(1, 2, 3)), rtol=1e-3, atol=20)
    np.testing.assert_allclose(masks.predicted_iou, iou[:, 0].clamp(0, 1), atol=1e-4)
