"""Adds up the comparison of labels with ground truth, image by image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schemas.evaluation import AveragePrecision, Confusion, LabelQuality, SignalCurves
from tasks.evaluate.arrays import ImageLabels, ImageObjects, overlaps
from tasks.evaluate.coco_ap import AveragePrecisionMeter
from tasks.evaluate.columns import Column
from tasks.evaluate.confusion import ConfusionCounts
from tasks.evaluate.curves import signal_curves
from tasks.evaluate.label_quality import label_quality
from tasks.evaluate.matching import match_labels, match_the_rest, ranking

SCORE = "detector_score"


class Figures(NamedTuple):
    """What a comparison found."""

    boxes: AveragePrecision
    masks: AveragePrecision | None
    accepted: LabelQuality
    accepted_and_review: LabelQuality
    signals: dict[str, SignalCurves]
    confusion_accepted: Confusion
    confusion_accepted_and_review: Confusion


class _Decided:
    """Labels that were matched among themselves, best score first: classes, outcomes, confusion."""

    def __init__(self, classes: int) -> None:
        self.class_index, self.outcome = Column(np.int32), Column(np.int8)
        self.confusion = ConfusionCounts(classes)

    def add(self, labels: ImageLabels, objects: ImageObjects, iou: np.ndarray, chosen: np.ndarray) -> None:
        """Match the chosen labels, (N,) flags; the others are not there."""
        label_class, overlap = labels.class_index[chosen], iou[chosen]
        score = labels.signals[SCORE][chosen]
        order = ranking(score, score)
        matches = match_labels(overlap, label_class, objects.class_index, objects.crowd, order)
        self.class_index.extend(label_class)
        self.outcome.extend(matches.outcome)
        matched = match_the_rest(matches, overlap, objects.crowd, order)
        self.confusion.add(label_class, objects.class_index, matched, matches.ignored, objects.crowd)


class Comparison:
    """Takes images one by one; of each label only its class, its signals and whether it is right are kept."""

    def __init__(self, class_names: Sequence[str], signals: Sequence[str], masks: bool) -> None:
        """Begin.

        Args:
            class_names: The classes that are compared.
            signals: Names of the signals that curves are wanted of.
            masks: Whether masks are compared too; then labels and objects must have them.
        """
        self._names = tuple(class_names)
        self._objects = np.zeros(len(class_names), np.int64)
        self._sets = {"accepted": _Decided(len(class_names)), "all": _Decided(len(class_names))}
        self._values = {name: Column(np.float32) for name in signals}
        self._outcomes = {name: Column(np.int8) for name in signals}
        self._boxes = AveragePrecisionMeter("bbox", len(class_names))
        self._masks = AveragePrecisionMeter("segm", len(class_names)) if masks else None

    def add(self, image: int, labels: ImageLabels, objects: ImageObjects) -> None:
        """Compare one image.

        Args:
            image: Its number, another one for each.
            labels: Its labels.
            objects: What is really there.
        """
        np.add.at(self._objects, objects.class_index[~objects.crowd], 1)
        iou = overlaps(labels, objects)
        self._sets["all"].add(labels, objects, iou, np.ones(len(labels.accepted), np.bool_))
        self._sets["accepted"].add(labels, objects, iou, labels.accepted)
        for name, values in self._values.items():
            order = ranking(labels.signals[name], labels.signals[SCORE])
            matches = match_labels(iou, labels.class_index, objects.class_index, objects.crowd, order)
            values.extend(labels.signals[name])
            self._outcomes[name].extend(matches.outcome)
        self._boxes.add(image, labels, objects)
        if self._masks is not None:
            self._masks.add(image, labels, objects)

    def figures(self) -> Figures:
        """Everything about the images so far."""
        objects = int(self._objects.sum())
        quality = {
            name: label_quality(part.class_index.array(), part.outcome.array(), self._objects, self._names)
            for name, part in self._sets.items()
        }
        return Figures(
            boxes=self._boxes.result(self._names),
            masks=self._masks.result(self._names) if self._masks is not None else None,
            accepted=quality["accepted"],
            accepted_and_review=quality["all"],
            signals={
                name: signal_curves(values.array(), self._outcomes[name].array(), objects)
                for name, values in self._values.items()
            },
            confusion_accepted=self._sets["accepted"].confusion.named(self._names),
            confusion_accepted_and_review=self._sets["all"].confusion.named(self._names),
        )
