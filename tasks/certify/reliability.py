"""How far stated probabilities agree with what came true."""

from dataclasses import dataclass

import numpy as np

from tasks.certify.bounds import Bools, Floats, Ints


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram and its sums."""

    stated: Floats
    """(B,) mean probability of each bin, ascending."""
    seen: Floats
    """(B,) weighted share of correct labels of each bin."""
    labels: Ints
    """(B,) labels of each bin."""
    brier: float
    """Weighted mean of (p - correct)^2."""
    calibration_error: float
    """Expected calibration error: weighted mean of |stated - seen| over the bins."""


def reliability(probabilities: Floats, correct: Bools, weights: Floats, bins: int = 15) -> Reliability:
    """Hold probabilities against verdicts, in bins of equal mass.

    Bins hold equally many labels as far as equal probabilities allow, which biases the error less than bins of equal
    width (K. Nixon et al., Measuring Calibration in Deep Learning, 2019). Even a perfect calibrator has an error above
    0, from chance within the bins.

    Args:
        probabilities: (n,) held-out p(correct); labels without one are left out.
        correct: (n,) verdicts.
        weights: (n,) 1 / inclusion probability, so that the figures are those of the batch.
        bins: How many at most; never so many that a bin is empty.
    """
    known = np.flatnonzero(np.isfinite(probabilities))
    order = known[np.argsort(probabilities[known], kind="stable")]
    p, right, weight = probabilities[order], correct[order].astype(np.float64), weights[order]
    count = min(bins, len(order))
    if not count:
        return Reliability(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), float("nan"), float("nan"))
    place = np.arange(len(order)) * count // len(order)
    # Equal probabilities share a bin: which of them stand first says nothing.
    place = np.unique(place[np.searchsorted(p, p)], return_inverse=True)[1]
    mass = np.bincount(place, weight)
    stated, seen = np.bincount(place, weight * p) / mass, np.bincount(place, weight * right) / mass
    return Reliability(
        stated=stated,
        seen=seen,
        labels=np.bincount(place),
        brier=float(weight @ (p - right) ** 2 / weight.sum()),
        calibration_error=float(mass @ np.abs(stated - seen) / mass.sum()),
    )
