"""What thresholds on a signal would do: sweeps, risk against coverage, reliability."""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.evaluation import Reliability, ReliabilityBin, RiskPoint, SignalCurves, SweepRow
from tasks.evaluate.matching import CORRECT, IGNORED
from tasks.statistics.calibrator import reliability

SWEEP_ROWS: Final = 20
RISK_POINTS: Final = 100
BINS: Final = 10

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class RiskCoverage(NamedTuple):
    """Every place at which a threshold can cut, best labels first; equal values are kept or dropped together."""

    kept: NDArray[np.int64]
    """(P,) labels kept, ascending."""
    precision: NDArray[np.float64]
    """(P,) share of them that is right."""
    threshold: Floats
    """(P,) least value among them, descending."""


def signal_curves(values: Floats, outcome: NDArray[np.int8], objects: int) -> SignalCurves:
    """Everything about one signal.

    Args:
        values: (N,) the signal of each label, NaN where missing.
        outcome: (N,) CORRECT, WRONG or IGNORED, from labels matched in the order of this signal, so that dropping
            labels below a threshold leaves the other labels' outcomes as they are.
        objects: Objects in the truth, crowds aside.
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
    """Precision and recall of the labels at or above round thresholds over the range of a signal.

    Args:
        values: (N,) signal, NaN where missing.
        correct: (N,) right or wrong.
        objects: Objects in the truth.
        rows: About how many thresholds.
    """
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
    """Multiples of 1, 2 or 5 times a power of ten, from below the least value to the greatest.

    Args:
        values: (N,) finite values.
        rows: At most about so many.
    """
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

    Args:
        values: (N,) signal, NaN where missing; those are kept by no threshold.
        correct: (N,) right or wrong.
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
    found = reliability(values.astype(np.float64), correct, np.ones(len(values)), BINS)
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
