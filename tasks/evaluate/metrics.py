"""Accumulates metrics image by image: precision, recall, confusion of classes, threshold sweeps, risk, reliability."""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vouch_labels.schemas.evaluation import (
    AveragePrecision,
    Confusion,
    LabelQuality,
    Quality,
    Reliability,
    ReliabilityBin,
    RiskPoint,
    SignalCurves,
    SweepRow,
)
from vouch_labels.tasks.evaluate.average_precision import AveragePrecisionMeter
from vouch_labels.tasks.matching import (
    CORRECT,
    IGNORED,
    NOT_MATCHED,
    WRONG,
    ImageLabels,
    ImageObjects,
    match_labels,
    match_the_rest,
    overlaps,
    ranking,
)
from vouch_labels.tasks.statistics.calibrator import Reliability as Bins
from vouch_labels.tasks.statistics.calibrator import reliability

SCORE = "detector_score"

BACKGROUND = "(background)"

SWEEP_ROWS: Final = 20
RISK_POINTS: Final = 100
BINS: Final = 10

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


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
        """Begin; to compare masks too, labels and objects must have them."""
        self._names = tuple(class_names)
        self._objects = np.zeros(len(class_names), np.int64)
        self._sets = {"accepted": _Decided(len(class_names)), "all": _Decided(len(class_names))}
        self._values = {name: Column(np.float32) for name in signals}
        self._outcomes = {name: Column(np.int8) for name in signals}
        self._boxes = AveragePrecisionMeter("bbox", len(class_names))
        self._masks = AveragePrecisionMeter("segm", len(class_names)) if masks else None

    def add(self, image: int, labels: ImageLabels, objects: ImageObjects) -> None:
        """Compare one image, each with a number of its own."""
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


def label_quality(
    class_index: NDArray[np.int32], outcome: NDArray[np.int8], objects: NDArray[np.int64], names: Sequence[str]
) -> LabelQuality:
    """Count right and wrong labels.

    Precision is correct / (correct + wrong), recall correct / objects; over all classes the counts are summed first,
    so that frequent classes weigh more. objects (K,) are those of each class in the truth, crowds aside.
    """
    found = [np.bincount(class_index[outcome == value], minlength=len(names)) for value in (CORRECT, WRONG, IGNORED)]
    counts = np.stack([*found, objects], axis=1)
    classes = {name: quality(*row) for name, row in zip(names, counts.tolist(), strict=True)}
    return LabelQuality(**quality(*counts.sum(0).tolist()).model_dump(), classes=classes)


def quality(correct: int, wrong: int, ignored: int, objects: int) -> Quality:
    """The figures that follow from the counts."""
    return Quality(
        labels=correct + wrong + ignored,
        correct=correct,
        wrong=wrong,
        ignored=ignored,
        objects=objects,
        precision=correct / (correct + wrong) if correct + wrong else None,
        recall=correct / objects if objects else None,
    )


class ConfusionCounts:
    """A matrix of labelled class by true class, background last, that grows image by image."""

    def __init__(self, classes: int) -> None:
        """Begin with zeros for so many classes."""
        self._background = classes
        self.counts = np.zeros((classes + 1, classes + 1), np.int64)

    def add(
        self,
        label_class: NDArray[np.int64],
        object_class: NDArray[np.int64],
        matched: NDArray[np.int64],
        ignored: NDArray[np.bool_],
        crowd: NDArray[np.bool_],
    ) -> None:
        """Count one image.

        matched (N,) is the place of each label's object, of whatever class, or NOT_MATCHED; labels on crowd regions
        (ignored) and these regions (crowd) are not counted.
        """
        on_object = matched != NOT_MATCHED
        np.add.at(self.counts, (label_class[on_object], object_class[matched[on_object]]), 1)
        np.add.at(self.counts[:, self._background], label_class[~on_object & ~ignored], 1)
        missed = ~crowd
        missed[matched[on_object]] = False
        np.add.at(self.counts[self._background], object_class[missed], 1)

    def named(self, names: Sequence[str]) -> Confusion:
        """The matrix with its names."""
        return Confusion(names=(*names, BACKGROUND), counts=tuple(tuple(row) for row in self.counts.tolist()))


class RiskCoverage(NamedTuple):
    """Every place at which a threshold can cut, best labels first; equal values are kept or dropped together."""

    kept: NDArray[np.int64]
    """(P,) labels kept, ascending."""
    precision: NDArray[np.float64]
    """(P,) share of them that is right."""
    threshold: Floats
    """(P,) least value among them, descending."""


def signal_curves(values: Floats, outcome: NDArray[np.int8], objects: int) -> SignalCurves:
    """Compute all curves of one signal, (N,) values, NaN where missing.

    Outcomes must come from labels matched in the order of this signal, so that dropping labels below a threshold leaves
    the other labels' outcomes as they are.
    """
    counted = outcome != IGNORED
    values, correct = values[counted], outcome[counted] == CORRECT
    present = np.isfinite(values)
    curve = risk_coverage(values, correct)
    return SignalCurves(
        labels=len(values),
        missing=int((~present).sum()),
        sweep=threshold_sweep(values, correct, objects),
        risk_coverage=_thinned(curve, len(values)),
        aurc=area_under_risk(curve),
        reliability=_reliability(values[present], correct[present]),
    )


def threshold_sweep(values: Floats, correct: Flags, objects: int, rows: int = SWEEP_ROWS) -> tuple[SweepRow, ...]:
    """Precision and recall of the labels at or above round thresholds, about `rows`, over the range of a signal."""
    present = np.isfinite(values)
    order = np.argsort(values[present], kind="stable")
    ascending = values[present][order]
    # right[i]: right labels among those from place i on.
    right = np.append(np.cumsum(correct[present][order][::-1])[::-1], 0)
    found = []
    for threshold in round_thresholds(ascending, rows):
        first = int(np.searchsorted(ascending, np.float32(threshold), side="left"))
        kept, hits = len(ascending) - first, int(right[first])
        row = SweepRow(
            threshold=threshold,
            labels=kept,
            share=kept / len(values),
            precision=hits / kept if kept else None,
            recall=hits / objects if objects else None,
        )
        found.append(row)
    return tuple(found)


def round_thresholds(values: Floats, rows: int = SWEEP_ROWS) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, from below the least value to the greatest."""
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-6, abs(high) * 1e-6)
    power = 10.0 ** math.floor(math.log10(span / rows))
    step = next(size * power for size in (1, 2, 5, 10, 20) if size * power * rows >= span * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.floor(low / step + 1e-6), math.floor(high / step + 1e-6)
    # As float32, the type of the signals, 0.35 is less than 0.35.
    first -= int(np.float32(round(first * step, digits)) > values.min())
    return [round(place * step, digits) for place in range(first, last + 1)]


def risk_coverage(values: Floats, correct: Flags) -> RiskCoverage:
    """Precision of the best labels, for every number of them that a threshold can keep.

    The risk-coverage curve of selective prediction (R. El-Yaniv, Y. Wiener, JMLR 11, 2010), with risk = 1 - precision.
    Labels without a value (NaN) are kept by no threshold.
    """
    present = np.isfinite(values)
    order = np.argsort(-values[present], kind="stable")
    descending, hits = values[present][order], np.cumsum(correct[present][order])
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True)) if len(descending) else np.zeros(0, int)
    kept = last.astype(np.int64) + 1
    return RiskCoverage(kept, hits[last] / np.maximum(kept, 1), descending[last])


def area_under_risk(curve: RiskCoverage) -> float | None:
    """Mean risk over all numbers of labels kept (AURC; Y. Geifman, G. Uziel, R. El-Yaniv, ICLR 2019).

    Labels of equal value share the risk of keeping all of them. Labels without a value are left out; None when no
    label has one.
    """
    if not len(curve.kept):
        return None
    weights = np.diff(curve.kept, prepend=0)
    return float(np.average(1 - curve.precision, weights=weights))


def _reliability(values: Floats, correct: Flags) -> Reliability | None:
    """Compare the scores of N labels with the share of right ones; None for what is no number from 0 to 1."""
    if not len(values) or values.min() < 0 or values.max() > 1:
        return None
    return reliability_bins(reliability(values.astype(np.float64), correct, np.ones(len(values)), BINS))


def reliability_bins(found: Bins) -> Reliability:
    """The figures to be shown of what was found."""
    bins = zip(found.labels.tolist(), found.stated.tolist(), found.seen.tolist(), strict=True)
    return Reliability(
        ece=found.calibration_error,
        bins=tuple(ReliabilityBin(labels=count, score=stated, precision=seen) for count, stated, seen in bins),
    )


def _thinned(curve: RiskCoverage, labels: int) -> tuple[RiskPoint, ...]:
    """About RISK_POINTS points, evenly over the coverage, the last one always."""
    if not len(curve.kept):
        return ()
    wanted = np.linspace(0, curve.kept[-1], RISK_POINTS + 1)[1:]
    places = np.unique(np.searchsorted(curve.kept, wanted, side="left"))
    return tuple(
        RiskPoint(
            coverage=float(curve.kept[place] / labels),
            precision=float(curve.precision[place]),
            threshold=float(curve.threshold[place]),
        )
        for place in places
    )


class Column:
    """One growing array; its bytes lie in one buffer, so that many small additions cost no memory of their own."""

    def __init__(self, dtype: DTypeLike) -> None:
        """Begin empty."""
        self._dtype = np.dtype(dtype)
        self._bytes = bytearray()

    def extend(self, values: NDArray[Any]) -> None:
        """Append (N,) values."""
        self._bytes += np.ascontiguousarray(values, self._dtype).tobytes()

    def array(self) -> NDArray[Any]:
        """All values, (N,)."""
        return np.frombuffer(bytes(self._bytes), self._dtype)
