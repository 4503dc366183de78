"""The bundled weights are the pinned ones, small, load through the public loading code, and know their world."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from vouch_labels.schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from vouch_labels.schemas.errors import CheckpointError
from vouch_labels.starter.evaluate import ROWS, count_hits, find
from vouch_labels.starter.scenes.scene import Scene
from vouch_labels.tasks.models.registry import Phrase, Pixels, load_detector, load_scorer, load_segmenter
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.score import crop

STARTER = Path(__file__).parents[2] / "starter"
WEIGHTS = STARTER / "weights"
CPU = Runtime("cpu", "fp32")
KINDS = ("detector", "segmenter", "scorer")
TRUTH = json.loads((STARTER / "samples" / "ground_truth.json").read_text())
NAMES = [category["name"] for category in TRUTH["categories"]]
EVALUATION = (STARTER / "EVALUATION.md").read_text()
SOME = TRUTH["images"][:16]


def pixels(image: dict[str, Any]) -> Pixels:
    with Image.open(STARTER / "samples" / str(image["file_name"])) as opened:
        return np.asarray(opened.convert("RGB"))


def truth(image: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in TRUTH["annotations"] if row["image_id"] == image["id"]]


def boxes(rows: list[dict[str, Any]]) -> np.ndarray:
    corners = [[x, y, x + width, y + height] for x, y, width, height in (row["bbox"] for row in rows)]
    return np.asarray(corners, np.float32).reshape(-1, 4)


def measured(key: str) -> float:
    """The figure that EVALUATION.md gives for fresh scenes; the samples must come close to it."""
    text = next(row.text for row in ROWS if row.key == key)
    line = next(line for line in EVALUATION.splitlines() if line.startswith(f"| {text} | "))
    return float(line.split(" | ")[1])


def test_checksums_pin_every_file() -> None:
    pinned = json.loads((WEIGHTS / "checksums.json").read_text())
    assert {f"{kind}.safetensors" for kind in KINDS} <= pinned.keys()
    for name, sha256 in pinned.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == sha256, name


def test_files_are_small_and_have_cards() -> None:
    sizes = {path.name: path.stat().st_size for path in WEIGHTS.glob("*.safetensors")}
    assert sizes.keys() == {f"{kind}.safetensors" for kind in KINDS}
    assert max(sizes.values()) <= 15_000_000
    assert sum(sizes.values()) <= 40_000_000
    for kind in KINDS:
        card = (WEIGHTS / f"{kind}.md").read_text()
        assert all(word in card for word in ("Limits", "Licence", "Noto Color Emoji")), kind


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "segmenter.safetensors"
    damaged.write_bytes((WEIGHTS / "segmenter.safetensors").read_bytes()[:-1000])
    config = SegmenterConfig(checkpoint=str(damaged), architecture=str(WEIGHTS / "segmenter.json"))
    with pytest.raises(CheckpointError, match=r"segmenter\.safetensors"):
        load_segmenter(config, CPU)


def test_another_models_sizes_are_refused(tmp_path: Path) -> None:
    sizes = json.loads((WEIGHTS / "segmenter.json").read_text())
    sizes["image_encoder"]["depth"] += 1
    other = tmp_path / "segmenter.json"
    other.write_text(json.dumps(sizes))
    config = SegmenterConfig(checkpoint=str(WEIGHTS / "segmenter.safetensors"), architecture=str(other))
    with pytest.raises(CheckpointError):
        load_segmenter(config, CPU)


def test_detector_finds_in_the_samples_what_it_finds_elsewhere() -> None:
    config = DetectorConfig()
    detector = load_detector(config, CPU)
    objects = hits = kept = 0
    for image in TRUTH["images"]:
        rows = truth(image)
        named = [(NAMES[row["category_id"] - 1], box) for row, box in zip(rows, boxes(rows), strict=True)]
        found = find(detector, config, Scene(pixels(image), ()), NAMES)
        objects += len(named)
        hits += count_hits(named, found, NAMES, config.min_score)
        kept += int((found[1] >= config.min_score).sum())
    assert objects > 150
    assert hits / objects > measured("detector.recall") - 0.1
    assert hits / kept > measured("detector.precision") - 0.1


def test_detector_takes_words_that_it_does_not_know() -> None:
    detector = load_detector(DetectorConfig(), CPU)
    found = detector.detect([pixels(SOME[0])], [Phrase("Zeppelin", 0), Phrase("Giraffe mit Übergröße", 1)], 0.3)
    assert found[0].scores.shape == (len(found[0].boxes), 2)
    assert np.isfinite(found[0].scores).all()


def test_segmenter_masks_true_boxes() -> None:
    segmenter = load_segmenter(SegmenterConfig(), CPU)
    answers = segmenter.segment([pixels(image) for image in SOME], [boxes(truth(image)) for image in SOME])
    overlaps = []
    for image, masks in zip(SOME, answers, strict=True):
        for row, counts in zip(truth(image), masks.rle_counts, strict=True):
            wanted = row["segmentation"]
            size = [image["height"], image["width"]]
            overlaps.append(coco_mask.iou([{"size": size, "counts": counts}], [wanted], [0])[0, 0])
    assert np.mean(overlaps) > measured("segmenter.mean_iou") - 0.05


def test_scorer_names_true_crops() -> None:
    scorer = load_scorer(ScorerConfig(), CPU)
    texts = scorer.embed_texts([*NAMES, "background"])
    crops, wanted = [], []
    for image in SOME:
        view, rows = pixels(image), truth(image)
        crops += [crop(view, box, 1.0) for box in boxes(rows)]
        wanted += [row["category_id"] - 1 for row in rows]
    answers = (scorer.embed_crops(crops) @ texts.T).argmax(axis=1)
    assert np.mean(answers == np.asarray(wanted)) > measured("scorer.top1") - 0.06
