"""Monitors a certified policy: precision of each batch by blind audits, drift of scores, expiry of the guarantee.

Expiry is an e-process: a bet against "at least T of the accepted labels are correct" that loses on average while that
is true, so its wealth ever reaches 1/delta with chance at most delta (J. Ville, 1939), however many batches are audited
and whenever one looks. After an audited batch b with labels of weight a_i and error w_i, each bet lambda multiplies by

    E_b(lambda) = prod_i (1 + lambda (a_i w_i - (1 - T))).

Wealth is the mean over a grid of lambda (I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by
betting, 2024). It is also averaged over when to begin betting, with weights v_s = 1/(s (s+1)) for beginning at batch s
(the mixture e-detector of J. Shin, A. Ramdas and A. Rinaldo, 2023, with weights that sum to one): a bet that began long
ago has lost its stake to many good batches and would take as long to notice a fall. What has not started is kept as
cash:

    M_b = 1/(b+1) + mean over lambda of S_b(lambda),   S_b = (S_{b-1} + v_b) E_b.

Validity with a stratified audit: with a_i = (N_h / N) (m / m_h), the expectation of E_b is at most
prod_h (1 + lambda (a_h p_h - (1-T)))^{m_h} (draws without replacement within a stratum are less spread than with, W.
Hoeffding 1963, Theorem 4), and by concavity of the logarithm that is at most (1 + lambda (p - (1-T)))^m <= 1 where
p = sum_h N_h p_h / N <= 1 - T. So wealth may be looked at after each batch, not within one.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy
from numpy.typing import NDArray

from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints, lower_bound, upper_bound

DRIFT_P: Final = 0.01
DRIFT_DISTANCE: Final = 0.1
DRIFT_AUDIT: Final = 2.0

BETS: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
"""The grid, in parts of the greatest bet 1/(1 - T), which a single correct label would ruin."""


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
    Graubard 1998, as in `bounds.korn_graubard`), with theta cut to [0, 1]. mean is that of p(correct) over all N
    accepted labels, sizes (H,) their number in each stratum. Where nothing was audited the estimate is NaN with the
    interval [0, 1].
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
    """
    first, second = before[np.isfinite(before)], now[np.isfinite(now)]
    if not len(first) or not len(second):
        return Drift(0.0, 1.0, 1.0 if len(first) == len(second) else DRIFT_AUDIT)
    found = scipy.stats.ks_2samp(first, second, method="asymp")
    distance, p_value = float(found.statistic), float(found.pvalue)
    drifted = p_value < DRIFT_P and distance >= DRIFT_DISTANCE
    return Drift(distance, p_value, DRIFT_AUDIT if drifted else 1.0)


@dataclass(frozen=True)
class Monitor:
    """Wealth of the bets against a policy's guarantee."""

    precision: float
    """T, below 1."""
    delta: float
    batches: int = 0
    stakes: tuple[float, ...] = (0.0,) * len(BETS)
    """S of each bet."""
    peak: float = 1.0
    """Greatest wealth so far."""

    @property
    def wealth(self) -> float:
        """M after the last batch."""
        return 1 / (self.batches + 1) + sum(self.stakes) / len(self.stakes)

    @property
    def expired(self) -> bool:
        """Whether wealth has ever reached 1/delta; a policy that has expired stays so."""
        return self.peak >= 1 / self.delta

    def after(self, wrong: Bools, inclusion: Floats, labels: int) -> "Monitor":
        """Bet on a batch of N accepted labels, m of them audited with inclusion probability m_h / N_h."""
        if not len(wrong):
            return self
        weights = len(wrong) / (labels * inclusion)
        limit = 1 - self.precision
        bets = BETS / limit
        # Logs, so that hundreds of factors neither overflow nor vanish on the way.
        growth = np.log1p(bets[:, None] * (weights * wrong - limit)[None, :]).sum(axis=1)
        batch = self.batches + 1
        stakes = (np.array(self.stakes) + 1 / (batch * (batch + 1))) * np.exp(np.minimum(growth, 400.0))
        after = Monitor(self.precision, self.delta, batch, tuple(np.minimum(stakes, 1e100).tolist()), self.peak)
        return Monitor(self.precision, self.delta, batch, after.stakes, max(self.peak, after.wealth))
