"""Images from 32 to 12,000 pixels a side go through the bundled models together, as they would alone.

Models that compute no numbers fail every image and write no label, whichever engine runs them.
"""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.tasks.boxes_masks import is_rle
from vouch_labels.tasks.models.checkpoints import STARTER
from vouch_labels.tasks.shard.files import read_part
from vouch_labels.tasks.shard.pipeline import _load
from vouch_labels.tasks.store.open import open_store

SAMPLE = Path(__file__).parents[3] / "starter" / "samples" / "scene-00000.jpg"
SIZES = {"tiny": (32, 32), "narrow": (40, 12_000), "wide": (12_000, 300), "usual": (384, 256), "large": (4_000, 3_000)}

BOX = ("x0", "y0", "x1", "y1")
MIN_SCORE = DetectorConfig().min_score
SIDES, SCORES = 1e-4, 2e-3
"""How far both sides' rounding moves boxes, in shares of the image, and scores: several times what the bounds of
tests/tasks/models/groundingdino/fast are for these models, 1e-5 and 6e-4."""


def draw(folder, names):
    folder.mkdir()
    with Image.open(SAMPLE) as sample:
        for name in names:
            width, height = SIZES[name]
            canvas = Image.new("RGB", (width, height), "grey")
            side = min(width, height)
            canvas.paste(sample.convert("RGB").resize((side, side)), (0, 0))
            canvas.save(folder / f"{name}.png")


@pytest.fixture
def labels_of(tmp_path, make_campaign, label):
    def run(where, names):
        draw(tmp_path / where, names)
        campaign = make_campaign(
            source=str(tmp_path / where),
            workspace=str(tmp_path / f"{where}-workspace"),
            classes=["dog", "cat", "frog", "car", "apple", "banana", "shoe", "key"],
            models={"device": "cpu"},
            run={"shard_size": 10},
        )
        summary, (marker,) = label(campaign)
        store = open_store(campaign.workspace)
        parts = [read_part(store, marker.parts[part], part).to_pylist() for part in ("detect", "segment")]
        return summary, [found | mask for found, mask in zip(*parts, strict=True)]

    return run


@pytest.mark.slow
def test_all_are_labelled_as_if_each_were_alone(labels_of):
    summary, together = labels_of("mixed", SIZES)
    assert (summary.failed, summary.done) == (0, len(SIZES))
    assert {row["key"] for row in together} >= {"usual.png", "large.png"}
    for row in together:
        width, height = SIZES[row["key"].removesuffix(".png")]
        assert 0 <= row["x0"] < row["x1"] <= width
        assert 0 <= row["y0"] < row["y1"] <= height
        assert is_rle(row["rle_counts"], height, width)
    for name in SIZES:
        _, alone = labels_of(name, [name])
        beside = [row for row in together if row["key"] == f"{name}.png"]
        assert_same(beside, alone)
        assert_same(alone, beside)


def assert_same(labels, others):
    """Every label is among the others but for rounding, which other batches do in another order.

    A label whose score lies at the threshold may be missing there; equal scores may stand in another order.
    """
    for row in labels:
        same = [
            other
            for other in others
            if other["class_name"] == row["class_name"]
            and all(abs(row[side] - other[side]) <= SIDES * max(SIZES[row["key"][:-4]]) for side in BOX)
        ]
        if not same:
            assert row["detector_score"] <= MIN_SCORE + SCORES, row
            continue
        assert min(abs(row["detector_score"] - other["detector_score"]) for other in same) <= SCORES
        # Of the pixels at the edge few have a logit that rounding takes across the threshold.
        assert min(abs(row["mask_area"] - other["mask_area"]) / row["mask_area"] for other in same) < 0.01


SAMPLES = Path(__file__).parents[3] / "starter" / "samples"
BROKEN = {
    "detector": ("transformer.enc_out_bbox_embed.layers.2.bias", "detect: the detector's answer is not finite"),
    "segmenter": ("mask_decoder.iou_prediction_head.layers.2.bias", "segment: the segmenter's answer is not finite"),
    "scorer": ("visual.layer4.0.downsample.1.bias", "CLIP gave no finite score for"),
}


@pytest.fixture
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


@pytest.mark.usefixtures("_fresh_models")
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
