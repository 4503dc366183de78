"""Predicts from fit labels what a certification can reach: where to begin, what to review, how many reviews it takes.

Only fit labels are looked at, so whatever is chosen here leaves the tests valid; a bad prediction costs reviews.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from tasks.certify.bounds import Bools, Floats, Ints, most_errors
from tasks.certify.gates import accepted_counts
from tasks.certify.ladder import ladder

POWER: Final = 0.8
QUANTILES: Final = (np.arange(25) + 0.5) / 25
"""Of the predicted share of wrong labels; sums over them stand for integrals."""
REGIONS: Final = 20
STARTS: Final = 20


@dataclass(frozen=True)
class FitLabels:
    """Reviewed labels of the fit side."""

    scores: Floats
    """(n,) held-out p(correct), so that they do not flatter."""
    wrong: Bools
    weights: Floats
    """(n,) 1 / inclusion probability."""


@dataclass(frozen=True)
class Plan:
    """What to review for gate A, fixed before anything of it is reviewed."""

    thresholds: Floats
    """The ladder, strict to loose; empty where no start is likely enough to pass."""
    power: float
    """Predicted chance that the first of them passes; with an empty ladder the best chance of any."""

    @property
    def region(self) -> float:
        """Least score of the labels to draw from; infinite with an empty ladder."""
        return float(self.thresholds[-1]) if len(self.thresholds) else float("inf")


def plan_gate_a(
    scores: Floats, fit: FitLabels, reviews: int, precision: float, delta: float, power: float = POWER
) -> Plan:
    """Choose where to start, and how far to go, with so many certification reviews under gate A.

    The share of wrong labels at or above t is taken as Beta(k + n e + 1/2, m - k + n (1-e) + 1/2): m the effective
    number of fit labels there, (sum w)^2 / sum w^2, k their weighted share of errors times m, e the mean of 1 - p over
    the set, which weighs as much as all n fit labels since the calibrator learnt from all. Given that share, the chance
    to pass is that of a binomial to stay within the errors allowed.

    A plan (start, end) spreads the reviews over the labels at or above its end, so stricter thresholds get their part
    of them. Of the plans whose start passes with at least `power`, the one with the most labels accepted on average is
    taken; along a ladder, the chance to reach a step is the least chance of the steps so far, errors being high or low
    together. Starting at the strictest threshold instead would fail for want of reviewed labels there.

    Args:
        scores: (N,) p(correct) of the set that the promise is about.
        fit: Reviewed labels of the fit side.
        reviews: Certification labels that can be afforded.
        precision: T.
        delta: 1 - confidence, for one group.
        power: Least predicted power of the first test.
    """
    steps = ladder(scores)
    accepted = accepted_counts(scores, steps)
    shares = predicted_shares(scores, steps, fit)
    best, best_value, best_power = slice(0, 0), 0.0, 0.0
    for end in _spread_indices(len(steps), REGIONS):
        size = accepted[: end + 1]
        reviewed = np.floor(min(reviews, int(size[-1])) * size / size[-1]).astype(np.int64)
        passing = _passing(shares[:, : end + 1], reviewed, 1 - precision, delta)
        for start in _spread_indices(end + 1, STARTS):
            first = float(passing[:, start].mean())
            reached = np.minimum.accumulate(passing[:, start:], axis=1).mean(axis=0)
            value = float(reached @ np.diff(size[start:], prepend=0)) if first >= power else 0.0
            if value > best_value:
                best, best_value, best_power = slice(start, end + 1), value, first
            elif not best_value:
                best_power = max(best_power, first)
    return Plan(steps[best], best_power)


def predicted_shares(scores: Floats, thresholds: Floats, fit: FitLabels) -> Floats:
    """`QUANTILES` of the share of wrong labels at or above each threshold, (Q, L), as `plan_gate_a` takes it."""
    known = np.sort(scores[np.isfinite(scores)])[::-1]
    accepted = accepted_counts(scores, thresholds)
    expected = np.cumsum(1 - known)[accepted - 1] / accepted if len(thresholds) else np.zeros(0)
    weights = fit.weights[:, None] * (fit.scores[:, None] >= thresholds[None, :])
    total, squares = weights.sum(axis=0), (weights**2).sum(axis=0)
    effective = np.divide(total**2, squares, out=np.zeros(len(total)), where=squares > 0)
    share = np.divide(weights[fit.wrong].sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
    prior = len(fit.wrong)
    wrong, right = share * effective + prior * expected, (1 - share) * effective + prior * (1 - expected)
    return np.asarray(stats.beta.ppf(QUANTILES[:, None], wrong + 0.5, right + 0.5), np.float64)


def reviews_needed(error: float, limit: float, delta: float, power: float = POWER) -> int | None:
    """Fewest reviewed labels of a set that certify it with some power, if its share of wrong labels is `error`.

    Args:
        error: Share of wrong labels that is expected.
        limit: Share allowed, 1 - T.
        delta: 1 - confidence.
        power: Chance to pass.

    Returns:
        The count, to about 2%; None where the error is not below the limit, or a million are not enough.
    """
    if error >= limit:
        return None
    counts = np.unique(np.geomspace(1, 1_000_000, 700).astype(np.int64))
    most = most_errors(counts, limit, delta)
    passing = np.where(most >= 0, stats.binom.cdf(np.maximum(most, 0), counts, error), 0.0) >= power
    # From the last count that fails: powers of discrete tests saw up and down.
    after = len(passing) - int(np.argmax(~passing[::-1]))
    return int(counts[after]) if after < len(counts) else None


def _spread_indices(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64)).tolist() if length else []


def _passing(shares: Floats, reviewed: Ints, limit: float, delta: float) -> Floats:
    """Chance to pass the test of each threshold, given each quantile of its share of wrong labels, (Q, L)."""
    most = most_errors(reviewed, limit, delta)
    return np.where(most >= 0, stats.binom.cdf(np.maximum(most, 0), reviewed, shares), 0.0)
