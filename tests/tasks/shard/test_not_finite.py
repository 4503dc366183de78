"""Models that compute no numbers fail every image and write no label, whichever engine runs them."""

import shutil
from pathlib import Path

import pytest

from tasks.models.checkpoints import STARTER
from tasks.shard.parts import read_part
from tasks.shard.pipeline import _load
from tasks.store.open import open_store

SAMPLES = Path(__file__).parents[3] / "starter" / "samples"
BROKEN = {
    "detector": ("transformer.enc_out_bbox_embed.layers.2.bias", "detect: the detector's answer is not finite"),
    "segmenter": ("mask_decoder.iou_prediction_head.layers.2.bias", "segment: the segmenter's answer is not finite"),
    "scorer": ("visual.layer4.0.downsample.1.bias", "CLIP gave no finite score for"),
}


@pytest.fixture(autouse=True)
def _fresh_models():
    _load.cache_clear()
    yield
    _load.cache_clear()


def spoilt(part, folder):
    """The bundled checkpoint of a part with one tensor of NaN."""
    from safetensors.torch import load_file, save_file

    state = load_file(STARTER / f"{part}.safetensors")
    state[BROKEN[part][0]].fill_(float("nan"))
    save_file(state, folder / f"{part}.safetensors")
    section = {"checkpoint": str(folder / f"{part}.safetensors"), "architecture": str(STARTER / f"{part}.json")}
    return section | ({"text_encoder": str(STARTER / "tokenizer")} if part == "detector" else {})


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("part", list(BROKEN))
def test_every_image_is_a_failed_row(tmp_path, make_campaign, label, part, engine):
    (tmp_path / "images").mkdir()
    for sample in sorted(SAMPLES.glob("*.jpg"))[:2]:
        shutil.copy(sample, tmp_path / "images")
    models = {"device": "cpu", "engine": engine, part: spoilt(part, tmp_path)}
    campaign = make_campaign(classes=["dog", "cat", "frog", "car", "apple"], models=models)
    summary, (marker,) = label(campaign)
    store = open_store(campaign.workspace)
    rows = read_part(store, marker.parts["images"], "images").to_pylist()
    labels = read_part(store, marker.parts["detect"], "detect")
    # Of an image without a label CLIP sees the whole.
    failed = [f"{row['step']}: {row['reason']}" for row in rows if row["outcome"] == "failed"]
    assert summary.failed == len(failed) > 0
    assert all(BROKEN[part][1] in reason for reason in failed)
    # Masks and scores are only asked for where something was found.
    assert {row["labels"] for row in rows if row["outcome"] == "done"} <= {0}
    assert labels.num_rows == 0
