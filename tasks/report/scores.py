"""How the scores of a run are spread, and how far p(correct) agrees with verdicts."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.evaluation import Reliability, ReliabilityBin
from schemas.policy import Policy
from schemas.report import Histogram, ReviewedReliability
from tasks.labels.arrays import SIGNALS, RunLabels
from tasks.report.reviewed import Reviewed
from tasks.statistics.bounds import Bools, Floats
from tasks.statistics.calibrator import reliability

EDGES: Final = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
"""Of p(correct): narrow towards both ends, where calibrated probabilities crowd."""
SCORE_EDGES: Final = tuple(place / 25 for place in range(26))
RELIABILITY_BINS: Final = 10
IN_A_BIN: Final = 20
"""Reviewed labels that a bin of the reliability diagram takes; fewer say little."""
LEAST_REVIEWED: Final = 20
"""Fewer labels make no reliability diagram."""


def score_histogram(labels: RunLabels, policy: Policy) -> Histogram | None:
    """Count labels by p(correct), or by the detector's score where there is no calibrator; None without labels."""
    if not labels.count:
        return None
    if np.isfinite(labels.p_correct).any():
        least = [group.p_correct for group in policy.groups if group.p_correct is not None]
        return _histogram("p_correct", labels.p_correct, labels.accepted, least, EDGES)
    rules = [group.accept.required() for group in policy.groups if group.accept is not None]
    least = [rule["detector_score"] for rule in rules if "detector_score" in rule]
    return _histogram("detector_score", detector_scores(labels), labels.accepted, least, SCORE_EDGES)


def detector_scores(labels: RunLabels) -> NDArray[np.float32]:
    """Score of each label, (N,)."""
    return labels.signals[:, SIGNALS.index("detector_score")]


def reviewed_reliability(labels: RunLabels, reviewed: Reviewed) -> ReviewedReliability:
    """Hold p(correct) against verdicts that the calibrator has not seen, those on the certify side."""
    rows = reviewed.rows[reviewed.held_out]
    known = np.isfinite(labels.p_correct[rows])
    if not np.isfinite(labels.p_correct).any():
        return ReviewedReliability(missing="there is no calibrator yet; it comes with the first certified policy")
    if known.sum() < LEAST_REVIEWED:
        words = f"only {int(known.sum())} reviewed labels were kept from the calibrator"
        return ReviewedReliability(labels=int(known.sum()), missing=f"{words}; {LEAST_REVIEWED} are needed")
    wrong, weights = reviewed.wrong[reviewed.held_out][known], reviewed.weights[reviewed.held_out][known]
    bins_wanted = max(1, min(RELIABILITY_BINS, int(known.sum()) // IN_A_BIN))
    found = reliability(labels.p_correct[rows][known], ~wrong, weights, bins_wanted)
    bins = zip(found.stated.tolist(), found.seen.tolist(), found.labels.tolist(), strict=True)
    return ReviewedReliability(
        found=Reliability(
            ece=found.calibration_error,
            bins=tuple(ReliabilityBin(labels=count, score=stated, precision=seen) for stated, seen, count in bins),
        ),
        brier=found.brier,
        labels=int(known.sum()),
    )


def _histogram(
    signal: str,
    values: Floats | NDArray[np.float32],
    accepted: Bools,
    least: Sequence[float],
    edges: Sequence[float],
) -> Histogram:
    known = np.isfinite(values)

    def count(chosen: Bools) -> tuple[int, ...]:
        return tuple(np.histogram(np.clip(values[chosen & known], 0, 1), edges)[0].tolist())

    return Histogram(
        signal=signal,
        edges=tuple(edges),
        accepted=count(accepted),
        review=count(~accepted),
        thresholds=tuple(sorted(set(least))),
        missing=int((~known).sum()),
    )
