"""Estimates the precision of a batch's accepted labels from its blind audit, and notices when scores drift."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tasks.certify.bounds import Bools, Floats, Ints, lower_bound, upper_bound

DRIFT_P: Final = 0.01
DRIFT_DISTANCE: Final = 0.1
DRIFT_AUDIT: Final = 2.0


@dataclass(frozen=True)
class Estimate:
    """An estimated share with its two-sided interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Audited:
    """The m labels of a blind audit, drawn by strata out of N accepted ones."""

    probabilities: Floats
    """(m,) their p(correct), none missing."""
    strata: Ints
    """(m,) stratum of each, as `sampling.audit_strata` gives it."""
    correct: Bools
    """(m,) their verdicts."""
    inclusion: Floats
    """(m,) their inclusion probabilities."""


def audited_precision(mean: float, sizes: Ints, audited: Audited, delta: float) -> Estimate:
    """Estimate the share of correct labels among the accepted ones: the difference estimator.

    theta = mean(f_i) + 1/N sum over the audited (w_i - f_i) / pi_i (C.-E. Särndal, B. Swensson and J. Wretman, Model
    Assisted Survey Sampling, 1992, eq. 6.3.3). It is unbiased whatever f is; a good f makes it sharper. Its variance is
    sum_h (N_h/N)^2 (1 - m_h/N_h) s_h^2 / m_h, s_h^2 that of w - f within the stratum (over all audited labels where a
    stratum has one).

    A normal interval would have no width when every audited label is correct. So the interval is that of Clopper and
    Pearson on an effective number of labels n* = theta (1 - theta) / variance, at most the audited m (Korn and
    Graubard 1998, as in `bounds.korn_graubard`), with theta cut to [0, 1].

    Args:
        mean: Mean p(correct) of all N accepted labels.
        sizes: (H,) accepted labels of each stratum; N is their sum.
        audited: The audited labels.
        delta: Chance that the interval misses the truth.

    Returns:
        The estimate; NaN with the interval [0, 1] where nothing was audited.
    """
    count, drawn = int(sizes.sum()), len(audited.correct)
    if not drawn:
        return Estimate(float("nan"), 0.0, 1.0)
    residuals = audited.correct - audited.probabilities
    theta = float(mean + (residuals / audited.inclusion).sum() / count)
    theta = min(1.0, max(0.0, theta))
    overall = float(residuals.var(ddof=1)) if drawn > 1 else 1.0
    variance = 0.0
    for stratum in np.unique(audited.strata):
        inside = residuals[audited.strata == stratum]
        spread = float(inside.var(ddof=1)) if len(inside) > 1 else overall
        missed = 1 - len(inside) / sizes[stratum]
        variance += (sizes[stratum] / count) ** 2 * missed * spread / len(inside)
    product = theta * (1 - theta)
    effective = min(float(drawn), product / variance) if product > 0 and variance > 0 else float(drawn)
    low = float(lower_bound(theta * effective, effective, delta / 2))
    return Estimate(theta, low, float(upper_bound(theta * effective, effective, delta / 2)))


@dataclass(frozen=True)
class Drift:
    """How far two batches' values lie apart."""

    distance: float
    """Largest difference of their distribution functions, in [0, 1]."""
    p_value: float
    audit_factor: float
    """How many times more to audit: 1 without drift."""


def score_drift(before: NDArray[Any], now: NDArray[Any]) -> Drift:
    """Compare a signal of two batches: two-sample Kolmogorov-Smirnov.

    Drift of unlabelled scores says "audit more" and no more: precision can hold while scores move, and fall while they
    do not, so it never expires a policy. Labels of one image move together, which makes p-values too small, and with
    many labels any difference is significant; so the distance must be at least `DRIFT_DISTANCE` as well. NaN is left
    out.

    Args:
        before: Values when the policy was certified.
        now: Values of the new batch.
    """
    first, second = before[np.isfinite(before)], now[np.isfinite(now)]
    if not len(first) or not len(second):
        return Drift(0.0, 1.0, 1.0 if len(first) == len(second) else DRIFT_AUDIT)
    found = stats.ks_2samp(first, second, method="asymp")
    distance, p_value = float(found.statistic), float(found.pvalue)
    drifted = p_value < DRIFT_P and distance >= DRIFT_DISTANCE
    return Drift(distance, p_value, DRIFT_AUDIT if drifted else 1.0)
