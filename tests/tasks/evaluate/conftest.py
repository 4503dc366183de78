"""Small worlds of labels and objects, and pycocotools called plainly on them."""

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import NamedTuple

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vouch_labels.tasks.matching import ImageLabels, ImageObjects, xywh_of

SIDE = 64


class World(NamedTuple):
    labels: list[ImageLabels]
    objects: list[ImageObjects]


def masks_of(xyxy: np.ndarray) -> list[dict]:
    """Boxes filled, as masks of an image of SIDE x SIDE pixels."""
    found = []
    for x0, y0, x1, y1 in np.asarray(xyxy).round().astype(int):
        mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
        mask[y0:y1, x0:x1] = 1
        found.append(mask_utils.encode(mask))
    return found


def image_labels(xyxy, class_index, score, accepted=None, **signals) -> ImageLabels:
    boxes = np.asarray(xyxy, np.float32).reshape(-1, 4)
    values = {"detector_score": score, **signals}
    return ImageLabels(
        class_index=np.asarray(class_index, np.int64),
        xyxy=boxes,
        accepted=np.ones(len(boxes), bool) if accepted is None else np.asarray(accepted, bool),
        signals={name: np.asarray(column, np.float32) for name, column in values.items()},
        masks=masks_of(boxes),
    )


def image_objects(xyxy, class_index, crowd=None) -> ImageObjects:
    boxes = np.asarray(xyxy, np.float32).reshape(-1, 4)
    return ImageObjects(
        class_index=np.asarray(class_index, np.int64),
        xywh=xywh_of(boxes),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool),
        masks=masks_of(boxes),
    )


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.integers(0, SIDE - 20, (count, 2))
    return np.concatenate([low, low + rng.integers(8, 20, (count, 2))], axis=1).astype(np.float32)


def random_world(seed: int, images: int = 12, classes: int = 3) -> World:
    """Objects, some of them crowds, and labels: shifted copies, some of another class, and boxes anywhere."""
    rng = np.random.default_rng(seed)
    world = World([], [])
    for _ in range(images):
        count = int(rng.integers(0, 6))
        boxes = random_boxes(rng, count)
        kinds = rng.integers(0, classes, count)
        world.objects.append(image_objects(boxes, kinds, rng.random(count) < 0.15))
        chosen = rng.integers(0, count, int(rng.integers(0, 8))) if count else np.zeros(0, int)
        shifted = np.clip(boxes[chosen] + rng.integers(-2, 3, (len(chosen), 4)), 0, SIDE)
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 2)
        stray = random_boxes(rng, int(rng.integers(0, 3)))
        found = np.concatenate([shifted, stray])
        same = np.concatenate([kinds[chosen], rng.integers(0, classes, len(stray))])
        named = np.where(rng.random(len(found)) < 0.8, same, rng.integers(0, classes, len(found)))
        # Few different scores, so that there are ties.
        score, other = rng.integers(1, 20, len(found)) / 20, rng.random(len(found))
        world.labels.append(image_labels(found, named, score, rng.random(len(found)) < 0.5, other=other))
    return world


def plain_cocoeval(world: World, kind: str, classes: int = 3) -> COCOeval:
    """The whole world at once, as pycocotools' users call it."""
    images = [{"id": place + 1, "height": SIDE, "width": SIDE} for place in range(len(world.labels))]
    truth: list[dict] = []
    results: list[dict] = []
    for image, (labels, objects) in enumerate(zip(world.labels, world.objects, strict=True), start=1):
        for place, box in enumerate(objects.xywh.tolist()):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": int(objects.class_index[place]) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(objects.crowd[place]),
                    "segmentation": objects.masks[place],
                }
            )
        for place, box in enumerate(xywh_of(labels.xyxy).tolist()):
            row = {"image_id": image, "category_id": int(labels.class_index[place]) + 1}
            shape = {"bbox": box} if kind == "bbox" else {"segmentation": labels.masks[place]}
            results.append(row | shape | {"score": float(labels.signals["detector_score"][place])})
    coco = COCO()
    coco.dataset = {
        "images": images,
        "categories": [{"id": number + 1, "name": str(number)} for number in range(classes)],
        "annotations": truth,
    }
    with redirect_stdout(StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.fixture
def make_world() -> Callable[..., World]:
    return random_world


@pytest.fixture
def make_labels() -> Callable[..., ImageLabels]:
    return image_labels


@pytest.fixture
def make_objects() -> Callable[..., ImageObjects]:
    return image_objects


@pytest.fixture
def plainly() -> Callable[..., COCOeval]:
    return plain_cocoeval
