"""Monitors a certified policy: precision of each batch by blind audits, drift of scores, expiry of the guarantee.

It also extends the guarantee to labels that come later, batch by batch (`Growth`).

Expiry is an e-process: a bet against "at least T of the accepted labels are correct" that loses on average while that
is true, so its wealth ever reaches 1/delta with chance at most delta (J. Ville, 1939), however many batches are audited
and whenever one looks. An audited batch of N labels, m of them sampled, a wrong one i with inclusion probability pi_i
and weight a_i = m / (N pi_i), multiplies each bet x by one of

    E_b(x) = prod over wrong i (1 + x a_i) / (1 + x m / N)^floor((1-T) N)
    E_b(x) = prod over all i (1 + x (a_i w_i - (1-T)) / T).

Which one is settled by N and m alone: the first where m / N is above 1 - T, since it gains from a finite batch, the
second elsewhere, since its stakes are the higher. Wealth is the mean over a grid of x (I. Waudby-Smith and A. Ramdas,
Estimating means of bounded random variables by betting, 2024). It is also averaged over when to begin betting, with
weights v_s = s^(-1/2) - (s+1)^(-1/2) for beginning at batch s (the mixture e-detector of J. Shin, A. Ramdas and A.
Rinaldo, 2023, with weights that sum to one): a bet that began long ago has lost its stake to many good batches and
would take as long to notice a fall. What has not started is kept as cash:

    M_b = (b+1)^(-1/2) + mean over x of S_b(x),   S_b = (S_{b-1} + v_b) E_b.

Validity with a stratified audit. First form: whether a label is sampled is an indicator; within a stratum these are
negatively associated (K. Joag-Dev and F. Proschan, Annals of Statistics 11, 1983, 3.2), and strata are independent, so
the expectation of the product over wrong labels is at most prod over all wrong labels (1 + pi_i x a_i) = (1 + x m/N)^W,
W wrong ones in the batch, and W <= floor((1-T) N). Second form: with lambda = x / T the expectation is at most
prod_h (1 + lambda (a_h p_h - (1-T)))^{m_h} (draws without replacement within a stratum are less spread than with, W.
Hoeffding 1963, Theorem 4), and by concavity of the logarithm that is at most (1 + lambda (p - (1-T)))^m <= 1 where
p = sum_h N_h p_h / N <= 1 - T. So wealth may be looked at after each batch, not within one.

Growth turns the question round: may the labels that came since the certificate count as covered? That needs an upper
bound of what is wrong, which holds after every batch at once. Its proof stands at `Growth`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy
from numpy.typing import NDArray

from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints, lower_bound, upper_bound, wrong_allowed
from vouch_labels.tasks.statistics.planning import POWER

DRIFT_P: Final = 0.01
DRIFT_DISTANCE: Final = 0.1
DRIFT_AUDIT: Final = 2.0

BETS: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
"""The grid, in parts of the greatest bet 1/(1 - T), which a single correct label would ruin."""

RATES: Final = 0.98 * 2.0 ** -np.arange(32)
"""The grid of `Growth`, in parts of the first batch's share of reviewed labels."""
WEIGHTS: Final = 1 / (np.arange(1, 33) * np.arange(2, 34))
"""Of the grid; they sum to less than 1."""
STEPS: Final = 40
"""Halvings when a bound is searched."""


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
    distance, p_value = _smirnov(first, second)
    drifted = p_value < DRIFT_P and distance >= DRIFT_DISTANCE
    return Drift(distance, p_value, DRIFT_AUDIT if drifted else 1.0)


def _smirnov(few: NDArray[Any], many: NDArray[Any]) -> tuple[float, float]:
    """Distance and asymptotic p-value as scipy.stats.ks_2samp gives them, looking at the few alone.

    Between two of the few values their distribution is flat and the other one rises, so that the distributions are
    farthest apart at one of the few or just before it.
    """
    few, many = np.sort(few), np.sort(many)
    share = np.arange(len(few) + 1) / len(few)
    before, at = (np.searchsorted(many, few, side) / len(many) for side in ("left", "right"))
    start, end = (np.searchsorted(few, few, side) for side in ("left", "right"))
    above, below = (share[end] - at).max(), (before - share[start]).max()
    distance = float(max(above, min(max(below, 0.0), 1.0)))
    larger, smaller = sorted((float(len(few)), float(len(many))), reverse=True)
    size = np.round(larger * smaller / (larger + smaller))
    return distance, float(min(max(scipy.stats.kstwo.sf(distance, size), 0.0), 1.0))


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
        return _cash(self.batches) + sum(self.stakes) / len(self.stakes)

    @property
    def expired(self) -> bool:
        """Whether wealth has ever reached 1/delta; a policy that has expired stays so."""
        return self.peak >= 1 / self.delta

    def after(self, wrong: Bools, inclusion: Floats, labels: int) -> "Monitor":
        """Bet on a batch of N accepted labels, m of them audited with inclusion probability m_h / N_h."""
        if not len(wrong):
            return self
        share, limit = len(wrong) / labels, 1 - self.precision
        weights = share / inclusion
        bets = BETS / limit
        # Logs, so that hundreds of factors neither overflow nor vanish on the way.
        if share > limit:
            odds = bets * self.precision
            growth = np.log1p(odds[:, None] * weights[wrong][None, :]).sum(axis=1)
            growth -= int(wrong_allowed(labels, limit)) * np.log1p(odds * share)
        else:
            growth = np.log1p(bets[:, None] * (weights * wrong - limit)[None, :]).sum(axis=1)
        batch = self.batches + 1
        started = _cash(self.batches) - _cash(batch)
        stakes = (np.array(self.stakes) + started) * np.exp(np.minimum(growth, 400.0))
        after = Monitor(self.precision, self.delta, batch, tuple(np.minimum(stakes, 1e100).tolist()), self.peak)
        return Monitor(self.precision, self.delta, batch, after.stakes, max(self.peak, after.wealth))


def _cash(batches: int) -> float:
    """Part of the wealth that has not started to bet after so many batches."""
    return float((batches + 1) ** -0.5)


@dataclass(frozen=True)
class Batch:
    """Labels that came together, and the verdicts on a simple random sample of them, drawn and answered as a whole.

    Gate "accepted": the labels that the policy accepts, so every wrong one was accepted. Gate "delivered": all labels,
    those that go to people too.
    """

    labels: int
    """N of the batch, fixed before the sample was drawn."""
    reviewed: int
    """n sampled ones; how many may depend on earlier batches' answers. With none, all labels count as wrong."""
    wrong: int
    """k of them accepted and called wrong; an answer that is missing counts as this."""
    correct: int
    """g of them called correct; the other n - k - g are routed and called wrong."""


@dataclass(frozen=True)
class Growth:
    """Whether all batches together keep the guarantee, whatever their shares of wrong labels: holds at every batch.

    Every sampled label that is called wrong is corrected. The others that would be called wrong are U accepted and V
    routed ones, out of M labels in all batches, of which k + r were corrected. If reviewers miss at most the share eta
    of all wrong labels, then with e = eta / (1-eta) and a = 1-T + e the guarantee is broken only if

        Y + a (k + r) > (1-T) M,   Y = (1+e) U + a V.

    For that is U + E > (1-T)(U + G) with G = M - U - V - k - r called correct and E = e (M - G) of them wrong at most.
    With gate "accepted" there is no routed label (r = V = 0), and it says that of the N - k accepted labels that are
    left, U and e (U + k) missed ones are more than the share 1-T.

    Bound of Y. In a batch with sampled share f = n/N the indicators of being sampled are negatively associated (K.
    Joag-Dev and F. Proschan, Annals of Statistics 11, 1983, 3.2), so with w and v wrong labels, accepted and routed,
    E exp(-lambda k - mu r) <= (1 - f (1 - exp(-lambda)))^w (1 - f (1 - exp(-mu)))^v. Take for a rate theta

        lambda = -log(1 - (1 - exp(-(1+e) theta)) / f),   mu = -log(1 - (1 - exp(-a theta)) / f).

    Then exp(theta ((1+e) w + a v) - lambda k - mu r) has an expectation of at most 1, given all earlier batches, and
    the product over the batches is a supermartingale, whatever w and v are: they may drift, and depend on what was
    answered. So is the mean over a grid of theta, which thus ever reaches 1/delta with chance delta at most (J. Ville,
    1939). Where a batch's f is too small for a theta, a smaller one stands for it in that batch, and Y is multiplied by
    the smallest. A fully reviewed batch adds nothing to the uncertainty (lambda = (1+e) theta).

    The grid is geometric, with a finest theta of 2^-31 of what the first batch's f allows, so that it serves for few
    errors and for millions; its weights fall slowly. f is known before an answer is, as every f must be: a grid chosen
    by answers would be no fixed bet, and the mean over it no supermartingale.
    """

    batches: tuple[Batch, ...]
    precision: float
    """T."""
    delta: float
    """Chance that any of the statements made after each batch is false."""
    missed: float = 0.0
    """eta, below 1."""
    first: float | None = None
    """Sampled share of the batch that was drawn first, which fixes the grid; None: it is the first of batches."""
    labels: int | None = None
    """Labels of all batches, each once; None: as many as the batches have together, which share none."""
    times: int = 1
    """In at least so many batches is each label that counts for Y: Y over the batches counts it as often."""

    @property
    def kept(self) -> bool:
        """Whether the batches so far keep the guarantee together."""
        return self._keeps(1 - self.precision)

    @property
    def bound(self) -> float:
        """Upper bound of the share of wrong labels: about the least s for which precision 1 - s would be kept."""
        low, high = (0.0, 1 - self.precision) if self.kept else (1 - self.precision, 1.0)
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._keeps(middle) else (middle, high)
        return high

    def _keeps(self, limit: float) -> bool:
        seen = [one for one in self.batches if one.reviewed]
        each = 1 / (1 - self.missed)
        routed = limit + each - 1
        # Labels of a batch without a review count as accepted and wrong.
        found = each * sum(one.labels for one in self.batches if not one.reviewed)
        if seen:
            labels, reviewed, wrong, correct = np.array(
                [(one.labels, one.reviewed, one.wrong, one.correct) for one in seen], np.float64
            ).T
            others = reviewed - wrong - correct
            shares = reviewed / labels
            unseen = _unseen(shares, self.first or shares[0], wrong, others, each, routed, self.delta)
            found += min(unseen, each * float((labels - reviewed).sum())) / self.times + routed * float(
                (wrong + others).sum()
            )
        all_labels = sum(one.labels for one in self.batches) if self.labels is None else self.labels
        return bool(found <= limit * all_labels * (1 + 1e-12))


def _unseen(
    shares: Floats, first: float, wrong: Floats, others: Floats, each: float, routed: float, delta: float
) -> float:
    """Upper bound of Y = each U + routed V, see `Growth`; shares (B,) are f, wrong (B,) k and others (B,) r."""
    most = -np.log1p(-RATES[0] * shares) / each
    thetas = -np.log1p(-RATES * first) / each
    rates = np.minimum(thetas[:, None], most[None, :])
    spent = _matching(each * rates, shares) @ wrong + _matching(routed * rates, shares) @ others
    # What is seen is taken from both sides: only what is unseen is bounded.
    logs = np.log(WEIGHTS) - spent + rates @ (each * wrong + routed * others)
    smallest = rates.min(axis=1)
    # The first term alone reaches log(1 / delta) at `high`.
    low, high = 0.0, float(((-np.log(delta) - logs) / smallest).min())
    if high <= 0:
        return 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        reached = np.logaddexp.reduce(logs + smallest * middle) >= -np.log(delta)
        low, high = (low, middle) if reached else (middle, high)
    return high


def _matching(rates: Floats, shares: Floats) -> Floats:
    """-log(1 - (1 - exp(-rate)) / f): what a found label takes off where each label adds this rate."""
    return np.asarray(-np.log1p(np.expm1(-rates) / shares), np.float64)


def reviews_to_extend(
    batches: Sequence[Batch],
    labels: int,
    wrong: float,
    precision: float,
    delta: float,
    missed: float = 0.0,
    routed_wrong: float = 0.0,
    power: float = POWER,
    all_labels: int | None = None,
) -> int | None:
    """About how many of a new batch's labels to review so that all batches keep the guarantee with this chance.

    It is the least for now. A batch of which hardly any label was reviewed may hide many wrong ones, which weighs on
    all that come after it, so it is wise to review some hundred labels of each whatever this says.

    Args:
        batches: Those before, with their answers.
        labels: N of the new batch.
        wrong: The share of its labels that will be accepted and wrong.
        precision: T.
        delta: As of `Growth`.
        missed: As of `Growth`.
        routed_wrong: The share of its labels that will be routed and wrong.
        power: The chance.
        all_labels: Of all batches, the new one too, each once; None: they share none.

    Returns:
        The number; None where a review of all of them would not do.
    """
    bad, others = round(wrong * labels), round(routed_wrong * labels)

    def passes(count: int) -> bool:
        found = int(scipy.stats.hypergeom.ppf(power, labels, bad, count))
        rest = min(round(others * count / labels), count - found)
        batch = Batch(labels, count, found, count - found - rest)
        return Growth((*batches, batch), precision, delta, missed, labels=all_labels).kept

    if not labels or not passes(labels):
        return None
    low, high = 0, labels
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
