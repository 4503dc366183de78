"""Measures the detector: seen classes, held-out colour and noun pairs, another style, absent classes."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.campaign import DetectorConfig
from starter.evaluation.fresh import OTHER_STYLE, fresh_scene
from starter.scenes.scene import Scene, SceneObject
from starter.scenes.vocabulary import HELD_OUT, SPLITS
from tasks.models.registry import Detector, Phrase, RawDetections, load_detector
from tasks.models.runtime import Runtime

SEEN_SEED, HELD_OUT_SEED = 11, 12
_LEAST_SCORE = 0.02

Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (N, 4) xyxy, scores (N,) and phrase indices (N,) of one image."""


def measure_detector(count: int, config: DetectorConfig | None = None) -> dict[str, float]:
    """Run a detector on freshly drawn scenes and compare with their truth.

    Args:
        count: Scenes a measurement.
        config: Which detector; by default the bundled one with the campaign's default thresholds.

    Returns:
        map50, map (nouns of the core split, all prompted); held_out_map50 (pairs never trained on, all prompted,
        among the same nouns in other colours); false_boxes (boxes an image at the default score, when only absent
        nouns are prompted); precision, recall (at the default score, IoU 0.5); mean_score (of the boxes kept there);
        other_map50, other_map, other_precision, other_recall, other_mean_score (the same in the other emoji style).
    """
    config = config or DetectorConfig()
    detector = load_detector(config, Runtime("cpu", "fp32"))
    nouns = [noun.name for noun in SPLITS["core"][0]]
    pairs = sorted(f"{colour} {noun}" for colour, noun in HELD_OUT if noun in nouns)
    seen = [fresh_scene(SEEN_SEED, index, "core") for index in range(count)]
    held_out = [fresh_scene(HELD_OUT_SEED, index, "core-heldout") for index in range(count)]
    other = [fresh_scene(SEEN_SEED, index, "core", OTHER_STYLE) for index in range(count)]
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
    """Count the boxes at or above a score that find an object: its name, IoU 0.5, each object once at most.

    Args:
        objects: Name and xyxy box of each true object.
        found: Boxes; their phrase indices are places in `names`.
        names: What was asked for.
        least: Score from which boxes count.
    """
    boxes, scores, labels = found
    free = set(range(len(objects)))
    for index in np.flatnonzero(scores >= least):
        named = [place for place in free if objects[place][0] == names[int(labels[index])]]
        overlap, match = max(((_iou(boxes[index], objects[place][1]), place) for place in named), default=(0.0, -1))
        if overlap >= 0.5:
            free.remove(match)
    return len(objects) - len(free)


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
    """COCO's average precision by pycocotools; objects whose name is not in `names` are no truth."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = [
        _annotation(image, item.xyxy, names.index(name_of(item)))
        for image, scene in enumerate(scenes)
        for item in scene.objects
        if name_of(item) in names
    ]
    results = [
        {**_annotation(image, box.tolist(), int(label)), "score": float(score)}
        for image, (boxes, scores, labels) in enumerate(found)
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]
    if not results:
        return {"map50": 0.0, "map": 0.0}
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(scenes))],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": [{**row, "id": number + 1} for number, row in enumerate(truth)],
    }
    # pycocotools prints its progress.
    with redirect_stdout(StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {"map": float(run.stats[0]), "map50": float(run.stats[1])}


def _annotation(image: int, xyxy: Iterable[float], category: int) -> dict[str, Any]:
    x0, y0, x1, y1 = xyxy
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def _iou(first: Iterable[float], second: Iterable[float]) -> float:
    a, b = np.asarray(tuple(first)), np.asarray(tuple(second))
    common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common + 1e-9))


def _false_boxes(detector: Detector, config: DetectorConfig, scene: Scene, nouns: Sequence[str]) -> int:
    """Boxes at the default score when every noun that is not in the scene is asked for."""
    present = {item.noun for item in scene.objects}
    _, scores, _ = find(detector, config, scene, [noun for noun in nouns if noun not in present])
    return int((scores >= config.min_score).sum())
