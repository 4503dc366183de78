"""Evaluates the bundled models and writes EVALUATION.md: `python -m vouch_labels.starter.evaluate`.

The detector is measured on seen classes, held-out pairs of colour and noun, another style and absent classes, the
segmenter by masks from true boxes, the scorer by which name fits a crop best, all three by speed. Scenes are drawn when
they are asked for, from seeds that no training used.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.command import exit_code
from vouch_labels.starter.scenes.scene import Scene, SceneObject, draw_scene
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, HELD_OUT, SPLITS
from vouch_labels.starter.train.run import update_card
from vouch_labels.tasks.boxes_masks import box_iou
from vouch_labels.tasks.evaluate.average_precision import AveragePrecisionMeter
from vouch_labels.tasks.matching import ImageLabels, ImageObjects, xywh_of
from vouch_labels.tasks.models.registry import (
    Detector,
    Floats,
    Phrase,
    Pixels,
    RawDetections,
    Segmenter,
    load_detector,
    load_scorer,
    load_segmenter,
)
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.score import crop, ensembled, softmax, templates_of

DETECTOR_SEEN_SEED, DETECTOR_HELD_OUT_SEED = 11, 12
_LEAST_SCORE = 0.02

Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (N, 4) xyxy, scores (N,) and phrase indices (N,) of one image."""

SEGMENTER_SEED = 13
_BATCH = 8
# Width of the boundary as a share of the image's diagonal, as the paper has it.
_BOUNDARY = 0.02

Mask = NDArray[np.bool_]

SCORER_SEEN_SEED: Final = 14
SCORER_HELD_OUT_SEED: Final = 15

SPEED_SEED = 16

OTHER_STYLE: Final = "twitter"
"""An emoji style that no training scene shows."""


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements; returns the exit code."""
    measures: dict[str, Callable[[int], dict[str, float]]] = {
        "detector": measure_detector,
        "segmenter": measure_segmenter,
        "scorer": measure_scorer,
        "speed": measure_speed,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=150, help="scenes a measurement")
    parser.add_argument("--only", choices=measures, action="append", help="measure this part; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("EVALUATION.md"))
    parser.add_argument("--cards", type=Path, help="folder of model cards whose figures are brought up to date")
    options = parser.parse_args(arguments)

    def work() -> str:
        figures: dict[str, float] = {}
        for part in options.only or measures:
            found = measures[part](options.scenes)
            figures |= {f"{part}.{name}": value for name, value in found.items()}
            sys.stdout.writelines(f"{name}: {value}\n" for name, value in _rows(part, figures).items())
            sys.stdout.flush()
        try:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            text = report(figures, options.scenes, f"a machine with {cores} CPU cores")
            options.out.write_text(text, encoding="utf-8")
            if options.cards:
                for part in ("detector", "segmenter", "scorer"):
                    if rows := _rows(part, figures):
                        card = options.cards / f"{part}.md"
                        update_card(card, "figures", {**rows, "scenes a figure": str(options.scenes)})
        except OSError as error:
            raise UserError(f"cannot write {error.filename}: {error.strerror or error}; choose another path") from error
        return f"written to {options.out}"

    return exit_code(work)


def _rows(part: str, figures: Mapping[str, float]) -> dict[str, str]:
    """The figures of a part, named, the other emoji style's last."""
    keys = {row.key: row.text for row in ROWS} | {row.other: f"another emoji style: {row.text}" for row in ROWS}
    return {text: f"{figures[key]:.3f}" for key, text in keys.items() if key.startswith(f"{part}.") and key in figures}


def measure_detector(count: int) -> dict[str, float]:
    """Run the bundled detector, with a campaign's default thresholds, on freshly drawn scenes with exact truth.

    Returns:
        map50, map (nouns of the core split, all prompted); held_out_map50 (pairs never trained on, all prompted,
        among the same nouns in other colours); false_boxes (boxes an image at the default score, when only absent
        nouns are prompted); precision, recall (at the default score, IoU 0.5); mean_score (of the boxes kept there);
        other_map50, other_map, other_precision, other_recall, other_mean_score (the same in the other emoji style).
    """
    config = DetectorConfig()
    detector = load_detector(config, Runtime("cpu", "fp32"))
    nouns = [noun.name for noun in SPLITS["core"][0]]
    pairs = sorted(f"{colour} {noun}" for colour, noun in HELD_OUT if noun in nouns)
    seen = [fresh_scene(DETECTOR_SEEN_SEED, index, "core") for index in range(count)]
    held_out = [fresh_scene(DETECTOR_HELD_OUT_SEED, index, "core-heldout") for index in range(count)]
    other = [fresh_scene(DETECTOR_SEEN_SEED, index, "core", OTHER_STYLE) for index in range(count)]
    named = [find(detector, config, scene, pairs) for scene in held_out]
    unseen = _average_precision(held_out, named, pairs, lambda item: item.phrase)
    return {
        **average_precision_of_nouns(detector, config, seen, nouns),
        "held_out_map50": unseen["map50"],
        "false_boxes": float(np.mean([_false_boxes(detector, config, scene, nouns) for scene in seen])),
        **{
            f"other_{name}": value for name, value in average_precision_of_nouns(detector, config, other, nouns).items()
        },
    }


def find(detector: Detector, config: DetectorConfig, scene: Scene, texts: Sequence[str]) -> Boxes:
    """Look for texts in a scene; the best text of each box counts, and of boxes that overlap the best one."""
    phrases = [Phrase(text, index) for index, text in enumerate(texts)]
    raw = detector.detect([scene.image], phrases, _LEAST_SCORE)[0]
    return _merged(raw, config.nms_iou)


def count_hits(objects: Sequence[tuple[str, Sequence[float]]], found: Boxes, names: Sequence[str], least: float) -> int:
    """Count the boxes at or above a score that find an object, see `pairs_of`."""
    return len(pairs_of(objects, found, names, least))


def pairs_of(
    objects: Sequence[tuple[str, Sequence[float]]], found: Boxes, names: Sequence[str], least: float
) -> list[tuple[int, int]]:
    """Pair the boxes at or above a score with objects: of its name, IoU 0.5, each object once at most.

    Objects are a name and an xyxy box each; the phrase indices of the boxes are places in `names`.

    Returns:
        Place of the box, place of the object.
    """
    boxes, scores, labels = found
    free, pairs = set(range(len(objects))), list[tuple[int, int]]()
    overlaps = box_iou(boxes, np.array([box for _, box in objects], np.float32).reshape(-1, 4))
    for index in np.flatnonzero(scores >= least):
        named = [place for place in free if objects[place][0] == names[int(labels[index])]]
        overlap, match = max(((overlaps[index, place], place) for place in named), default=(0.0, -1))
        if overlap >= 0.5:
            free.remove(match)
            pairs.append((int(index), match))
    return pairs


def average_precision_of_nouns(
    detector: Detector, config: DetectorConfig, scenes: Sequence[Scene], nouns: Sequence[str]
) -> dict[str, float]:
    """Prompt all nouns: average precision, and what is found at the default score."""
    found = [find(detector, config, scene, nouns) for scene in scenes]
    truth = [[(item.noun, item.xyxy) for item in scene.objects] for scene in scenes]
    hits = sum(count_hits(*pair, nouns, config.min_score) for pair in zip(truth, found, strict=True))
    kept = np.concatenate([scores[scores >= config.min_score] for _, scores, _ in found])
    return {
        **_average_precision(scenes, found, nouns, lambda item: item.noun),
        "precision": hits / max(len(kept), 1),
        "recall": hits / max(sum(map(len, truth)), 1),
        "mean_score": float(kept.mean()) if len(kept) else 0.0,
    }


def _merged(raw: RawDetections, iou: float) -> Boxes:
    """The best phrase of each box, and of boxes that overlap more than `iou` the best one."""
    from torch import from_numpy
    from torchvision.ops import nms

    if not len(raw.boxes):
        return raw.boxes, np.zeros(0, np.float32), np.zeros(0, np.int64)
    scores, labels = raw.scores.max(axis=1), raw.scores.argmax(axis=1)
    kept = nms(from_numpy(raw.boxes), from_numpy(scores), iou).numpy()
    return raw.boxes[kept], scores[kept], labels[kept]


def _average_precision(
    scenes: Sequence[Scene], found: Sequence[Boxes], names: Sequence[str], name_of: Callable[[SceneObject], str]
) -> dict[str, float]:
    """COCO's average precision; objects whose name is not in `names` are no truth."""
    meter = AveragePrecisionMeter("bbox", len(names))
    for image, (scene, (boxes, scores, labels)) in enumerate(zip(scenes, found, strict=True)):
        truth = [item for item in scene.objects if name_of(item) in names]
        corners = np.array([item.xyxy for item in truth], np.float32).reshape(-1, 4)
        classes = np.array([names.index(name_of(item)) for item in truth], np.int64)
        crowd, accepted = np.zeros(len(truth), np.bool_), np.ones(len(boxes), np.bool_)
        given = ImageLabels(labels, boxes, accepted, {"detector_score": scores})
        meter.add(image, given, ImageObjects(classes, xywh_of(corners), crowd))
    whole = meter.result(names)
    return {"map": whole.map or 0.0, "map50": whole.ap50 or 0.0}


def _false_boxes(detector: Detector, config: DetectorConfig, scene: Scene, nouns: Sequence[str]) -> int:
    """Boxes at the default score when every noun that is not in the scene is asked for."""
    present = {item.noun for item in scene.objects}
    _, scores, _ = find(detector, config, scene, [noun for noun in nouns if noun not in present])
    return int((scores >= config.min_score).sum())


def measure_segmenter(count: int) -> dict[str, float]:
    """Prompt the bundled segmenter with the true boxes of freshly drawn scenes.

    Returns:
        mean_iou over objects; boundary_iou likewise (Cheng et al., Boundary IoU, CVPR 2021, eq. 2); iou_error, the
        mean absolute error of the model's own estimate of its IoU; other_mean_iou, other_boundary_iou,
        other_iou_error (the same in the other emoji style).
    """
    segmenter = load_segmenter(SegmenterConfig(), Runtime("cpu", "fp32"))
    other = _of_style(segmenter, count, OTHER_STYLE)
    return _of_style(segmenter, count, "noto") | {f"other_{name}": value for name, value in other.items()}


def _of_style(segmenter: Segmenter, count: int, style: str) -> dict[str, float]:
    from pycocotools import mask as coco_mask

    rows: list[tuple[float, float, float]] = []
    for start in range(0, count, _BATCH):
        scenes = [
            fresh_scene(SEGMENTER_SEED, index, "core", style) for index in range(start, min(start + _BATCH, count))
        ]
        boxes = [np.asarray([item.xyxy for item in scene.objects], np.float32).reshape(-1, 4) for scene in scenes]
        answers = segmenter.segment([scene.image for scene in scenes], boxes)
        for scene, masks in zip(scenes, answers, strict=True):
            for item, counts, estimate in zip(scene.objects, masks.rle_counts, masks.predicted_iou, strict=True):
                found = coco_mask.decode({"size": list(item.mask.shape), "counts": counts}).astype(bool)
                overlap, boundary = _mask_iou(found, item.mask), _mask_iou(_boundary(found), _boundary(item.mask))
                rows.append((overlap, boundary, abs(float(estimate) - overlap)))
    return dict(zip(("mean_iou", "boundary_iou", "iou_error"), np.mean(rows, axis=0).tolist(), strict=True))


def _mask_iou(first: Mask, second: Mask) -> float:
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


def _boundary(mask: Mask) -> Mask:
    """Pixels of a mask that lie within the boundary's width of its edge; the image's edge counts as one."""
    width = max(round(_BOUNDARY * float(np.hypot(*mask.shape))), 1)
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = np.asarray(cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width), bool)[1:-1, 1:-1]
    return np.asarray(mask & ~inner, bool)


def measure_scorer(count: int) -> dict[str, float]:
    """Classify the true crops of freshly drawn scenes by their most similar text.

    The scorer is the bundled one, with a campaign's default templates and background.

    Returns:
        top1 (nouns of the core split and the background texts compete); phrase_top1 (all nouns, tinted ones in
        every colour, held-out pairs among them, compete); held_out_top1 (the same for objects of held-out pairs);
        background_top1 (random squares that touch no object go to a background text rather than to a noun);
        probability (mean softmax probability of the answers that top1 counts); other_top1, other_probability (the
        same in the other emoji style).
    """
    config = ScorerConfig()
    scorer = load_scorer(config, Runtime("cpu", "fp32"))
    nouns = SPLITS["core"][0]
    names = [noun.name for noun in nouns]
    phrases = [
        f"{colour} {noun.name}" if colour else noun.name
        for noun in nouns
        for colour in (COLOURS if noun.tinted else (None,))
    ]
    templates = templates_of(config.templates)
    plain = ensembled(scorer, [*names, *config.background], templates)
    exact = ensembled(scorer, phrases, templates)
    objects, crops, empty = _crops(SCORER_SEEN_SEED, count, "core")
    seen = scorer.embed_crops(crops)
    strangers, strange_crops, _ = _crops(SCORER_SEEN_SEED, count, "core", OTHER_STYLE)
    strange = scorer.embed_crops(strange_crops)
    factor = scorer.logit_scale if config.temperature is None else 1 / config.temperature
    others, held_out_crops, _ = _crops(SCORER_HELD_OUT_SEED, count, "core-heldout")
    unseen = [number for number, item in enumerate(others) if (item.colour, item.noun) in HELD_OUT]
    held_out = scorer.embed_crops([held_out_crops[number] for number in unseen])
    return {
        "top1": _share(seen @ plain.T, [names.index(item.noun) for item in objects]),
        "phrase_top1": _share(seen @ exact.T, [phrases.index(item.phrase) for item in objects]),
        "held_out_top1": _share(held_out @ exact.T, [phrases.index(others[number].phrase) for number in unseen]),
        "background_top1": float(np.mean((scorer.embed_crops(empty) @ plain.T).argmax(axis=1) >= len(names))),
        "probability": _confidence(seen @ plain.T, factor),
        "other_top1": _share(strange @ plain.T, [names.index(item.noun) for item in strangers]),
        "other_probability": _confidence(strange @ plain.T, factor),
    }


def _share(similarities: Floats, right: Sequence[int]) -> float:
    return float(np.mean(similarities.argmax(axis=1) == np.asarray(right)))


def _confidence(similarities: Floats, factor: float) -> float:
    """Mean probability of the most similar text."""
    competes = np.ones(similarities.shape, np.bool_)
    return float(softmax(similarities, competes, similarities.argmax(axis=1), factor)[0].mean())


def _crops(
    seed: int, count: int, split: str, style: str = "noto"
) -> tuple[list[SceneObject], list[Pixels], list[Pixels]]:
    """Objects of the scenes, their crops, and squares in which nothing is."""
    objects: list[SceneObject] = []
    crops: list[Pixels] = []
    empty: list[Pixels] = []
    for index in range(count):
        scene = fresh_scene(seed, index, split, style)
        height, width = scene.image.shape[:2]
        objects += scene.objects
        crops += [crop(scene.image, np.asarray(item.xyxy, np.float32), 1.0) for item in scene.objects]
        rng = np.random.default_rng([seed, index, 2])
        side = int(rng.integers(30, 100))
        left, top = int(rng.integers(width - side)), int(rng.integers(height - side))
        if not any(item.mask[top : top + side, left : left + side].any() for item in scene.objects):
            empty.append(scene.image[top : top + side, left : left + side])
    return objects, crops, empty


def measure_speed(count: int) -> dict[str, float]:
    """Images a second that the bundled models detect, segment and score: drawn scenes of 384 px, without files.

    Eight scenes before those that count warm up.
    """
    runtime, config = Runtime("cpu", "fp32"), DetectorConfig()
    detector = load_detector(config, runtime)
    segmenter = load_segmenter(SegmenterConfig(), runtime)
    scorer = load_scorer(ScorerConfig(), runtime)
    phrases = [Phrase(noun.name, index) for index, noun in enumerate(CORE)]
    images = [draw_scene(SPEED_SEED, index, "core", 384, 384).image for index in range(count + _BATCH)]
    started = 0.0
    for first in range(0, len(images), _BATCH):
        if first == _BATCH:
            started = time.perf_counter()
        batch = images[first : first + _BATCH]
        boxes = [np.asarray(found.boxes) for found in detector.detect(batch, phrases, config.min_score)]
        segmenter.segment(batch, boxes)
        scorer.embed_crops(
            [
                crop(image, box, context)
                for image, found in zip(batch, boxes, strict=True)
                for box in found
                for context in (1.0, 1.5)
            ]
        )
    return {"images_per_second": count / (time.perf_counter() - started)}


@dataclass(frozen=True)
class Row:
    """One line of the table: the key of a figure, what it is, and whether more is better.

    `target` is what a training on a GPU is to reach, `floor` what one on a CPU is; None where nothing is asked.
    """

    key: str
    text: str
    target: float | None = None
    floor: float | None = None
    least: bool = True

    @property
    def other(self) -> str:
        """Key of the same figure in the other emoji style."""
        part, _, name = self.key.partition(".")
        return f"{part}.other_{name}"


ROWS: Final = (
    Row("detector.map50", "detector, seen classes, mAP50", 0.90, 0.80),
    Row("detector.map", "detector, seen classes, mAP", 0.70, 0.55),
    Row("detector.held_out_map50", "detector, held-out colour and noun pairs, mAP50", 0.70, 0.55),
    Row("detector.false_boxes", "false boxes an image, only absent classes asked for", 0.15, 0.40, least=False),
    Row("detector.precision", "detector, precision at the default score, IoU 0.5"),
    Row("detector.recall", "detector, recall at the default score, IoU 0.5"),
    Row("detector.mean_score", "detector, mean score of the boxes kept there"),
    Row("segmenter.mean_iou", "segmenter from true boxes, mean IoU", 0.92, 0.88),
    Row("segmenter.boundary_iou", "segmenter from true boxes, mean boundary IoU"),
    Row("segmenter.iou_error", "error of the segmenter's estimate of its IoU"),
    Row("scorer.top1", "scorer on true crops, top-1 among nouns and background", 0.95, 0.90),
    Row("scorer.probability", "scorer on true crops, mean probability of its answer"),
    Row("scorer.phrase_top1", "scorer on true crops, top-1 with colours"),
    Row("scorer.held_out_top1", "scorer on crops of held-out pairs, top-1 with colours", 0.75, 0.60),
    Row("scorer.background_top1", "scorer on empty squares, background wins"),
    Row("speed.images_per_second", "three models alone, without files and flow, 384 px, images a second"),
)


def report(figures: Mapping[str, float], scenes: int, machine: str) -> str:
    """Write the evaluation as Markdown; figures are by the key of their row, each of so many scenes."""
    lines = [
        "# What the bundled models reach",
        "",
        f"Measured by `make starter-eval` on {scenes} freshly drawn scenes of 256 to 384 pixels for each part, with",
        f"seeds that no training used, on {machine}. The target is meant for a training on a GPU, the floor for a",
        "short one on a CPU; the bundled weights are of the second kind.",
        "",
        "| figure | value | target | floor | |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        if row.key in figures:
            value = figures[row.key]
            sign = "≥" if row.least else "≤"
            limits = " | ".join("" if limit is None else f"{sign} {limit:.2f}" for limit in (row.target, row.floor))
            lines.append(f"| {row.text} | {value:.3f} | {limits} | {_verdict(row, value)} |")
    lines += [
        *_other_style(figures),
        "",
        "These are figures of a small drawn world: they say that the parts work together, nothing about photographs.",
        "",
    ]
    return "\n".join(lines)


def _other_style(figures: Mapping[str, float]) -> list[str]:
    rows = [row for row in ROWS if row.other in figures]
    if not rows:
        return []
    return [
        "",
        "## Another emoji style, never trained on",
        "",
        "The same worlds drawn with the glyphs of Twemoji instead of Noto's: the same things in other looks. Less is",
        "found, and scores that can be trusted fall with the precision.",
        "",
        "| figure | seen style | other style |",
        "|---|---|---|",
        *(f"| {row.text} | {figures[row.key]:.3f} | {figures[row.other]:.3f} |" for row in rows),
    ]


def _verdict(row: Row, value: float) -> str:
    if row.target is None or row.floor is None:
        return ""
    if _reaches(row, value, row.target):
        return "target met"
    return "floor met" if _reaches(row, value, row.floor) else "not met"


def _reaches(row: Row, value: float, limit: float) -> bool:
    return value >= limit if row.least else value <= limit


def fresh_scene(seed: int, index: int, split: str, style: str = "noto") -> Scene:
    """Draw a scene of 256 to 384 px a side, whatever the split and style; no training draws seeds below 1000."""
    height, width = (int(side) for side in np.random.default_rng([seed, index, 1]).integers(256, 385, 2))
    return draw_scene(seed, index, split, height, width, style=style)


if __name__ == "__main__":
    sys.exit(main())
