"""Computes average precision by pycocotools, image by image: of every label only its score and its matches are kept."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.evaluation import AveragePrecision, ClassAp
from vouch_labels.tasks.matching import ImageLabels, ImageObjects, Rle, xywh_of

CHUNK_IMAGES: Final = 32
"""Images that are handed to pycocotools at once; only those classes are looked at which they show."""
THRESHOLDS: Final = 10
"""IoU 0.50, 0.55 ... 0.95."""
MOST_LABELS: Final = 100
"""Labels of a class in an image that COCO looks at, best scores first."""


class _Evaluated(NamedTuple):
    """Labels of some images; T IoU thresholds are the bits of a number."""

    class_index: NDArray[np.int32]
    image: NDArray[np.int64]
    score: NDArray[np.float64]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]


class AveragePrecisionMeter:
    """Takes images one by one and gives the figures that COCOeval gives for all of them at once."""

    def __init__(self, kind: Literal["bbox", "segm"], classes: int) -> None:
        """Compare boxes or masks; for masks, labels and objects must have them."""
        self._kind = kind
        self._objects = np.zeros(classes, np.int64)
        self._waiting: list[tuple[int, ImageLabels, ImageObjects]] = []
        self._done: list[_Evaluated] = []

    def add(self, image: int, labels: ImageLabels, objects: ImageObjects) -> None:
        """Take one image; equal scores of different images rank by its number."""
        self._waiting.append((image, labels, objects))
        np.add.at(self._objects, objects.class_index[~objects.crowd], 1)
        if len(self._waiting) == CHUNK_IMAGES:
            self._evaluate()

    def result(self, names: Sequence[str]) -> AveragePrecision:
        """The figures of all images so far."""
        self._evaluate()
        precision, recall = self._accumulate()
        classes = {name: self._class_ap(precision, recall, place) for place, name in enumerate(names)}
        return AveragePrecision(
            map=_mean(precision),
            ap50=_mean(precision[0]),
            ap75=_mean(precision[5]),
            ar100=_mean(recall),
            classes=classes,
        )

    def _class_ap(self, precision: NDArray[np.float64], recall: NDArray[np.float64], place: int) -> ClassAp:
        objects = int(self._objects[place])
        return ClassAp(
            objects=objects,
            ap=_mean(precision[:, :, place]),
            ap50=_mean(precision[0, :, place]),
            recall50=_mean(recall[0, place]),
            precision_at_recall=tuple(precision[0, :, place].tolist()) if objects else (),
        )

    def _evaluate(self) -> None:
        """Match the waiting images with pycocotools, and keep what their labels contribute."""
        from pycocotools.cocoeval import COCOeval

        shown = [part.class_index for _, labels, objects in self._waiting for part in (labels, objects)]
        classes = np.unique(np.concatenate(shown)).tolist() if shown else []
        if classes:
            truth = [self._rows(place, objects) for place, (_, _, objects) in enumerate(self._waiting)]
            found = [self._rows(place, labels) for place, (_, labels, _) in enumerate(self._waiting)]
            # pycocotools prints its progress.
            with redirect_stdout(StringIO()):
                run = COCOeval(self._coco(truth, classes), self._coco(found, classes), self._kind)
                run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], run.params.areaRngLbl[:1]
                run.params.maxDets = [MOST_LABELS]
                run.evaluate()
            numbers = [image for image, _, _ in self._waiting]
            self._done += [_evaluated(entry, numbers) for entry in run.evalImgs if entry is not None]
            self._done = self._done if len(self._done) < 4096 else [_joined(self._done)]
        self._waiting = []

    def _rows(self, place: int, one: ImageObjects | ImageLabels) -> list[dict[str, Any]]:
        """Annotations of one image, without their ids."""
        if isinstance(one, ImageObjects):
            boxes, crowd, scores = one.xywh, one.crowd, np.zeros(len(one.xywh))
        else:
            boxes, crowd = xywh_of(one.xyxy), np.zeros(len(one.xyxy), np.bool_)
            scores = np.nan_to_num(one.signals["detector_score"].astype(np.float64), nan=-1.0)
        masks: Sequence[Rle | None] = one.masks if self._kind == "segm" and one.masks else [None] * len(boxes)
        columns = (one.class_index.tolist(), boxes.tolist(), crowd.tolist(), scores.tolist(), masks)
        return [
            {
                "image_id": place,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(is_crowd),
                "score": score,
                "segmentation": mask,
            }
            for category, box, is_crowd, score, mask in zip(*columns, strict=True)
        ]

    def _coco(self, rows: list[list[dict[str, Any]]], classes: list[int]) -> Any:  # noqa: ANN401 - has no types
        from pycocotools.coco import COCO

        coco = COCO()
        # From 1: pycocotools takes 0 for unmatched.
        annotations = [row | {"id": number} for number, row in enumerate((row for one in rows for row in one), start=1)]
        coco.dataset = {
            # Sizes are asked for, but only polygons would need them.
            "images": [{"id": place, "height": 0, "width": 0} for place in range(len(rows))],
            "categories": [{"id": category} for category in classes],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    def _accumulate(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (T, 101, K) and recall (T, K) by COCOeval.accumulate; -1 for classes without an object."""
        from pycocotools.cocoeval import COCOeval

        labels = _joined(self._done)
        run = COCOeval(iouType=self._kind)
        order = np.lexsort((labels.image, labels.class_index))
        ends = np.searchsorted(labels.class_index[order], np.arange(len(self._objects) + 1))
        # All labels of a class stand as if they were one image's, in the order in which COCOeval would join images.
        places = [order[start:end] for start, end in pairwise(ends)]
        objects = self._objects.tolist()
        run.evalImgs = [
            {
                "dtScores": labels.score[rows],
                "dtMatches": _bits(labels.matched[rows]),
                "dtIgnore": _bits(labels.ignored[rows]),
                "gtIgnore": np.zeros(count),
            }
            for rows, count in zip(places, objects, strict=True)
        ]
        run.params.catIds, run.params.imgIds = list(range(len(objects))), [0]
        run.params.areaRng, run.params.maxDets = run.params.areaRng[:1], [max(1, len(labels.score))]
        # What evaluate() would set.
        run._paramsEval = run.params
        with redirect_stdout(StringIO()):
            run.accumulate()
        return run.eval["precision"][:, :, :, 0, 0], run.eval["recall"][:, :, 0, 0]


def _evaluated(entry: dict[str, Any], numbers: Sequence[int]) -> _Evaluated:
    weights = 1 << np.arange(THRESHOLDS)
    count = len(entry["dtScores"])
    return _Evaluated(
        np.full(count, entry["category_id"], np.int32),
        np.full(count, numbers[entry["image_id"]], np.int64),
        np.asarray(entry["dtScores"], np.float64),
        (weights @ (entry["dtMatches"] > 0)).astype(np.uint16).reshape(-1),
        (weights @ np.asarray(entry["dtIgnore"], np.int64)).astype(np.uint16).reshape(-1),
    )


def _joined(parts: Sequence[_Evaluated]) -> _Evaluated:
    empty = _Evaluated(
        np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.uint16), np.zeros(0, np.uint16)
    )
    return _Evaluated(*map(np.concatenate, zip(empty, *parts, strict=True)))


def _bits(packed: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """(T, N) flags."""
    flags: NDArray[np.bool_] = (packed[None, :] >> np.arange(THRESHOLDS)[:, None]) & 1 == 1
    return flags


def _mean(values: Any) -> float | None:  # noqa: ANN401 - a numpy array or scalar
    """Mean of what there is; COCOeval says -1 for what is not."""
    there = np.asarray(values)[np.asarray(values) > -1]
    return float(there.mean()) if there.size else None
