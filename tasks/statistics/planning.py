"""Predicts from fit labels what a certification can reach and how many reviews it takes; states what a test has shown.

Only fit labels are used for predictions, so whatever is chosen by them leaves the tests valid; a bad prediction costs
reviews. A certificate is a group's threshold, or why there is none and how many reviews are missing.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import scipy

from vouch_labels.tasks.statistics.betting import BetEvidence
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints, hypergeometric_p, lower_bound, most_errors
from vouch_labels.tasks.statistics.threshold_tests import (
    NEXT_TEST,
    DeliveredTest,
    Evidence,
    Population,
    Sample,
    accepted_counts,
    certified_step,
    expected_wrong,
    threshold_grid,
)

POWER: Final = 0.8
QUANTILES: Final = (np.arange(25) + 0.5) / 25
"""Of the predicted share of wrong labels; sums over them stand for integrals."""
REGIONS: Final = 20
STARTS: Final = 20


@dataclass(frozen=True)
class FitLabels:
    """Reviewed labels that the calibrator was fitted to."""

    scores: Floats
    """(n,) held-out p(correct), so that they do not flatter."""
    wrong: Bools
    weights: Floats
    """(n,) 1 / inclusion probability."""


@dataclass(frozen=True)
class Plan:
    """What to review for gate A, fixed before anything of it is reviewed."""

    thresholds: Floats
    """The threshold grid, strict to loose; empty where no start is likely enough to pass."""
    power: float
    """Predicted chance that the first of them passes; with an empty threshold grid the best chance of any."""

    @property
    def region(self) -> float:
        """Least score of the labels to draw from; infinite with an empty threshold grid."""
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
    taken; along a threshold grid, the chance to reach a step is the least chance of the steps so far, errors being high
    or low together. Starting at the strictest threshold instead would fail for want of reviewed labels there.
    """
    steps = threshold_grid(scores)
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
    wrong = expected_wrong(scores)
    accepted = accepted_counts(scores, thresholds)
    expected = wrong[accepted] / accepted if len(thresholds) else np.zeros(0)
    weights = fit.weights[:, None] * (fit.scores[:, None] >= thresholds[None, :])
    total, squares = weights.sum(axis=0), (weights**2).sum(axis=0)
    effective = np.divide(total**2, squares, out=np.zeros(len(total)), where=squares > 0)
    share = np.divide(weights[fit.wrong].sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
    prior = len(fit.wrong)
    wrong, right = share * effective + prior * expected, (1 - share) * effective + prior * (1 - expected)
    return np.asarray(scipy.stats.beta.ppf(QUANTILES[:, None], wrong + 0.5, right + 0.5), np.float64)


def reviews_needed(error: float, limit: float, delta: float, power: float = POWER) -> int | None:
    """Fewest reviewed labels of a set that certify it with some power, if its share of wrong labels is `error`.

    To about 2%; None where the error is not below the limit, or a million are not enough.
    """
    if error >= limit:
        return None
    counts = np.unique(np.geomspace(1, 1_000_000, 700).astype(np.int64))
    passing = _passing(error, counts, limit, delta) >= power
    # From the last count that fails: powers of discrete tests saw up and down.
    after = len(passing) - int(np.argmax(~passing[::-1]))
    return int(counts[after]) if after < len(counts) else None


def fewest_labels(gate: str, population: Population, precision: float, delta: float, missed: float) -> int | None:
    """Fewest sampled labels of a population that certify it if all of them are correct; None: not even all would.

    By the exact tests at delta: gate "accepted" of all its labels, gate "delivered" of those that are known, too.
    """

    def passes(count: int) -> bool:
        if gate == "delivered":
            return bool(DeliveredTest(population, count, precision, missed).p(0, count) <= delta)
        limit = (1 - precision) * (1 - missed)
        return bool(hypergeometric_p(0, count, population.labels, limit) <= delta)

    low, high = 0, population.labels
    if not passes(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _spread_indices(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64)).tolist() if length else []


def _passing(shares: Floats | float, reviewed: Ints, limit: float, delta: float) -> Floats:
    """Chance to pass the test of each threshold, given each quantile of its share of wrong labels, (Q, L)."""
    most = most_errors(reviewed, limit, delta)
    return np.where(most >= 0, scipy.stats.binom.cdf(np.maximum(most, 0), reviewed, shares), 0.0)


@dataclass(frozen=True)
class Certificate:
    """The result for one group."""

    threshold: float | None
    """Accept labels with p(correct) at or above it; None: accept nothing."""
    reviewed: int
    """Sampled labels that stood for the set of this threshold, n; of the threshold that failed where there is none."""
    errors: int
    """Wrong among them, k."""
    bound: float
    """Upper bound of the share of wrong labels there, at the confidence of the test."""
    p_value: float
    tested: Floats
    """The thresholds up to and with the first that failed, in the order tested."""
    refusal: str
    """Why nothing is accepted; empty where something is."""
    more_reviews: int | None
    """About how many more reviewed labels of the kind that was drawn would certify the first threshold with a chance
    of 80%, if its share of errors stays, at the level of the next test, which drawing them is; None where something is
    certified, or no number would do."""


def certify(evidence: Evidence, drawn: int) -> Certificate:
    """Test a threshold grid in its order, and describe the result; drawn counts labels outside the tested sets too."""
    step = certified_step(evidence)
    if not len(evidence.thresholds):
        return Certificate(None, 0, 0, 1.0, 1.0, evidence.thresholds, "there is no threshold to test", None)
    shown = 0 if step is None else step
    last = 0 if step is None else min(step + 1, len(evidence.thresholds) - 1)
    refusal, more = _refusal(evidence, drawn) if step is None else ("", None)
    return Certificate(
        threshold=None if step is None else float(evidence.thresholds[step]),
        reviewed=int(evidence.reviewed[shown]),
        errors=int(evidence.errors[shown]),
        bound=evidence.bound(shown),
        p_value=float(evidence.p_values[shown]),
        tested=evidence.thresholds[: last + 1],
        refusal=refusal,
        more_reviews=more,
    )


def _refusal(evidence: Evidence, drawn: int) -> tuple[str, int | None]:
    """Why the first threshold failed, and how many more labels to draw."""
    reviewed, errors, limit = int(evidence.reviewed[0]), int(evidence.errors[0]), float(evidence.limits[0])
    if isinstance(evidence, BetEvidence):
        return _refusal_any_time(evidence)
    if evidence.delivered is not None:
        return _refusal_delivered(evidence, evidence.delivered)
    if limit <= 0:
        return "reviewers may miss so many wrong labels that no sample shows this precision; add honeypots", None
    most = int(most_errors(reviewed, limit, evidence.delta))
    found = f"{errors} of {reviewed} reviewed labels are wrong at the strictest threshold"
    found += f", at most {most} may be" if most >= 0 else ", and so few certify nothing even without an error"
    if float(lower_bound(errors, reviewed, evidence.delta)) >= limit:
        return f"{found}; more reviews will not help while so many are wrong", None
    delta = evidence.delta * NEXT_TEST
    # Half an error more and one label: without any error the share is small, not 0.
    needed = reviews_needed((errors + 0.5) / (reviewed + 1), limit, delta)
    condition = ""
    if needed is None or not reviewed:
        needed = reviews_needed(limit / 2, limit, delta)
        condition = ", enough if half as many are wrong as may be"
    if needed is None:
        return f"{found}; a million reviews would not do", None
    more = max(1, int(np.ceil((needed - reviewed) * drawn / reviewed))) if reviewed else needed
    return f"{found}; review about {more:,} more{condition}", more


def _refusal_any_time(evidence: BetEvidence) -> tuple[str, int | None]:
    """As `_refusal`, of the test after any answer, which goes on at the same level."""
    found = (
        f"{int(evidence.errors[0])} of {int(evidence.reviewed[0])} reviewed labels are wrong at the strictest threshold"
    )
    more = float(evidence.bets.answers_to(evidence.delta)[0]) if evidence.bets is not None else np.inf
    if not np.isfinite(more):
        return f"{found}; more reviews will not help while so many are wrong", None
    return f"{found}, after so few answers; review about {max(1, int(more)):,} more", max(1, int(more))


def _refusal_delivered(evidence: Evidence, test: DeliveredTest) -> tuple[str, int | None]:
    """As `_refusal`, of the exact test of gate B: in a fixed population, reviews of all labels are enough at last."""
    reviewed, errors = int(evidence.reviewed[0]), int(evidence.errors[0])
    # The level may be above the part of delta.
    delta = min(evidence.delta, evidence.part or evidence.delta) * NEXT_TEST
    correct, drawn = reviewed - errors, test.drawn
    found = f"{errors} of {reviewed} reviewed labels are wrong at the strictest threshold"
    share, kept = (errors + 0.5) / (drawn + 1), (correct + 0.5) / (drawn + 1)

    def passes(more: int) -> bool:
        larger = replace(test, drawn=drawn + more)
        wrong = errors + int(scipy.stats.binom.ppf(POWER, more, share))
        return bool(larger.p(wrong, min(correct + round(more * kept), larger.drawn - wrong)) <= delta)

    low, high = 0, test.population.labels - drawn
    if high < 1 or not passes(high):
        also = f"{', or' if errors else ' while'} reviewers may miss so many" if test.missed else ""
        many = " while so many are wrong" if errors else ""
        return f"{found}; more reviews will not help{many}{also}", None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return f"{found}, too many for so few reviews; review about {high:,} more", high


@dataclass(frozen=True)
class Precisions:
    """Both precisions at a threshold, as a sample of the whole population estimates them."""

    accepted: float
    """A: of the accepted labels; NaN without a sampled one."""
    accepted_at_least: float
    delivered: float
    """B: of the delivered labels, reviewers trusted; NaN without a sampled one."""
    delivered_at_least: float


def both_precisions(sample: Sample, threshold: float | None, delta: float) -> Precisions:
    """Estimate both precisions from a simple random sample of all labels, with lower bounds at 1 - delta each.

    The bounds are for reading: a threshold that was chosen by this sample has its guarantee from `certify` alone, and
    that for its own gate.
    """
    accepted = sample.scores >= (np.inf if threshold is None else threshold)
    right, wrong = int((accepted & ~sample.wrong).sum()), int((accepted & sample.wrong).sum())
    kept = int((~accepted & ~sample.wrong).sum())
    return Precisions(
        accepted=_share(right, right + wrong),
        accepted_at_least=float(lower_bound(right, right + wrong, delta)),
        delivered=_share(right + kept, right + kept + wrong),
        delivered_at_least=float(lower_bound(right + kept, right + kept + wrong, delta)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
