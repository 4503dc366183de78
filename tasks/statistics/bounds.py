"""Computes exact tests and confidence bounds for a share of wrong labels.

Which bound is valid depends on how the labels were drawn. Labels drawn one by one, with our own seed, from a fixed
batch: the count of wrong ones is hypergeometric whatever the batch is like, so clustering of errors within images does
not matter. Whole images drawn: use `korn_graubard`, for the binomial breaks its guarantee there.

The error rate of reviewers is bounded with control items: labels known to be wrong, mixed into the queue without
a mark. They must be as hard to see as the wrong labels that they stand for, and the share of
wrong labels in the queue, control items included, must be the one under which the validation labels are reviewed:
people miss more of what is rare.

The precision of each class, shrunk towards that of all where few of its labels were reviewed, is for reading; no
guarantee rests on it.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

_MOST_LABELS: Final = 10_000_000
_ROUNDING: Final = 1e-9
"""Keeps (1 - 0.9) * 10 = 0.9999999999999998 from being cut to 0."""

SHARE_OF_DELTA: Final = 0.2
"""Part of the guaranteed delta that goes to the bounds of what reviewers miss."""

STRENGTHS: Final = np.geomspace(1, 1_000, 31)
"""Labels that the common share may be worth to each class."""


def wrong_allowed(labels: ArrayLike, limit: ArrayLike) -> Ints:
    """Most wrong labels that sets may hold, limit being the share 1 - T that is allowed: floor(limit * labels)."""
    return np.asarray(np.floor(np.asarray(labels) * np.asarray(limit) + _ROUNDING), np.int64)


def binomial_p(errors: ArrayLike, reviewed: ArrayLike, limit: ArrayLike) -> Floats:
    """P-value of "the share of wrong labels is above `limit`": P(Binomial(n, limit) <= k), 1 where n = 0.

    For draws without replacement it is an upper bound of the exact one wherever it is below 1/2, as the hypergeometric
    has the lighter lower tail (W. Uhlmann, Metrika 10, 1966).
    """
    return np.asarray(scipy.stats.binom.cdf(np.asarray(errors), np.asarray(reviewed), np.asarray(limit)), np.float64)


def hypergeometric_p(errors: ArrayLike, reviewed: ArrayLike, labels: ArrayLike, limit: ArrayLike) -> Floats:
    """P-value of "more than `limit` of these N labels are wrong", exact for draws without replacement.

    P(Hypergeometric(N, floor(limit N) + 1, n) <= k), the least favourable member of the hypothesis; 1 where N = 0.
    """
    size = np.asarray(labels, np.int64)
    least_wrong = np.minimum(wrong_allowed(size, limit) + 1, size)
    found = scipy.stats.hypergeom.cdf(np.asarray(errors), size, least_wrong, np.asarray(reviewed))
    return np.asarray(np.where(size > 0, found, 1.0), np.float64)


def upper_bound(errors: ArrayLike, reviewed: ArrayLike, delta: float) -> Floats:
    """One-sided Clopper-Pearson upper bound of a share: Beta(1 - delta; k + 1, n - k).

    delta is the chance that the bound is too low. The bound is 1 where k = n, so also without any trial (Clopper and
    Pearson, Biometrika 26, 1934).
    """
    count, trials = np.asarray(errors, np.float64), np.asarray(reviewed, np.float64)
    rest = np.maximum(trials - count, 0)
    # The same numbers as scipy.stats.beta.ppf's, whose import would take a third of the time of `vouch status`.
    bound = scipy.special.betaincinv(count + 1, np.where(rest > 0, rest, 1.0), 1 - delta)
    return np.asarray(np.where(rest > 0, bound, 1.0), np.float64)


def hypergeometric_upper_bound(errors: int, reviewed: int, labels: int, delta: float) -> float:
    """One-sided upper bound of the share of wrong labels among N, of which n were drawn without replacement.

    The largest K / N with P(Hypergeometric(N, K, n) <= k) > delta, so it is at most a limit exactly where
    `hypergeometric_p` certifies that limit.
    """
    if labels == 0:
        return 1.0
    # Between what is known to be wrong and what could be; the CDF falls as K grows.
    low, high = errors, labels - (reviewed - errors) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if scipy.stats.hypergeom.cdf(errors, labels, middle, reviewed) > delta else (low, middle)
        )
    return low / labels


def lower_bound(successes: ArrayLike, reviewed: ArrayLike, delta: float) -> Floats:
    """One-sided Clopper-Pearson lower bound of a share, 1 - `upper_bound` of its complement."""
    return 1 - upper_bound(np.asarray(reviewed) - np.asarray(successes), reviewed, delta)


def most_errors(reviewed: ArrayLike, limit: ArrayLike, delta: float) -> Ints:
    """Most errors among n reviewed labels with which `binomial_p` is still at most delta; -1 where none is."""
    trials, share = np.asarray(reviewed), np.asarray(limit)
    guess = np.asarray(scipy.stats.binom.ppf(delta, trials, share))
    # ppf gives the first k whose CDF reaches delta, which is one too many unless it meets delta exactly.
    exact = scipy.stats.binom.cdf(guess, trials, share) <= delta
    return np.where(exact, guess, guess - 1).astype(np.int64)


def labels_needed(errors: int, limit: float, delta: float) -> int:
    """Fewest reviewed labels n that certify a share in spite of errors: P(Binomial(n, limit) <= errors) <= delta.

    Raises:
        ValueError: limit or delta is not in (0, 1), or more than ten million labels were needed.
    """
    if not (0 < limit < 1 and 0 < delta < 1):
        raise ValueError(f"limit {limit} and delta {delta} must lie between 0 and 1")
    low, high = errors, errors + 1
    while scipy.stats.binom.cdf(errors, high, limit) > delta:
        low, high = high, 2 * high
        if high > _MOST_LABELS:
            raise ValueError(f"more than {_MOST_LABELS:,} labels were needed")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if scipy.stats.binom.cdf(errors, middle, limit) <= delta else (middle, high)
    return high


def korn_graubard(errors: Ints, reviewed: Ints, delta: float) -> float:
    """Upper bound of the share of wrong labels when whole images were drawn and every label of each was reviewed.

    With p = sum(errors) / sum(reviewed), n labels in m images and the cluster variance of the ratio
    v = m/(m-1) sum_j (k_j - p n_j)^2 / n^2: deff = max(1, v / (p (1-p) / n)),
    n* = n / deff (t_{n-1} / t_{c-1})^2 at the quantile 1 - delta, bound Beta(1 - delta; p n* + 1, n* - p n*)
    (E. L. Korn and B. I. Graubard, Survey Methodology 24, 1998). They take m - 1 degrees of freedom; here it is the
    number c of images with an error, two at least, less one, for these alone tell how errors cluster, and with few of
    them m - 1 guaranteed too much. Without any error the sample says nothing of clustering; then n* is the number of
    images, as if the labels of one image were copies of each other.

    The bound is approximate, unlike those of labels drawn one by one. Draw labels, not images, where precision is to be
    certified. An image without labels says nothing here, so reviewed (m,) is above 0; with fewer than two images the
    bound is 1.
    """
    images, labels = len(reviewed), int(reviewed.sum())
    if images < 2 or labels == 0:
        return 1.0
    share = float(errors.sum() / labels)
    if share >= 1:
        return 1.0
    if share == 0:
        return float(upper_bound(0, images, delta))
    variance = images / (images - 1) * float(((errors - share * reviewed) ** 2).sum()) / labels**2
    design_effect = max(1.0, variance / (share * (1 - share) / labels))
    telling = max(2, int((errors > 0).sum()))
    quantiles = scipy.stats.t.ppf(1 - delta, [labels - 1, telling - 1])
    effective = labels / design_effect * float(quantiles[0] / quantiles[1]) ** 2
    return float(upper_bound(share * effective, effective, delta))


@dataclass(frozen=True)
class ReviewerError:
    """Upper bounds of the share of wrong labels that reviewers call correct."""

    accepted: float
    """Of wrong labels that a policy may accept."""
    routed: float
    """Of wrong labels that people get in any case."""
    spent: float
    """Chance that a bound is too low."""


TRUSTED: Final = ReviewerError(0.0, 0.0, 0.0)
"""Reviewers' verdicts define what is correct."""


def reviewer_error(
    honeypots: int, missed: int, delta: float, honeypots_routed: int = 0, missed_routed: int = 0
) -> ReviewerError:
    """Bound the share of wrong labels that reviewers miss.

    Clopper-Pearson upper bounds; `SHARE_OF_DELTA` of delta is spent, half on each where both are measured. honeypots
    counts the known-wrong labels with scores as accepted labels have them, honeypots_routed those with scores of routed
    ones. Without the former nothing is known, so the bound is 1 and nothing will be certified; without the latter the
    first bound stands for both.
    """
    spent = SHARE_OF_DELTA * delta
    if not honeypots_routed:
        bound = float(upper_bound(missed, honeypots, spent))
        return ReviewerError(bound, bound, spent)
    return ReviewerError(
        float(upper_bound(missed, honeypots, spent / 2)),
        float(upper_bound(missed_routed, honeypots_routed, spent / 2)),
        spent,
    )


def shrunken_shares(errors: Ints, reviewed: Ints) -> Floats:
    """Estimate a share of each class, drawn towards that of all: empirical Bayes.

    Each class has a share of its own from Beta(m s, m (1-s)), s the share of all (half an error and half a right label
    added, so that it is neither 0 nor 1), m the strength with the largest beta-binomial likelihood. The estimate is
    (k + m s) / (n + m) (B. Efron and C. Morris, Scientific American 236, 1977, for the idea). A class without a review
    has the share of all.
    """
    share = (float(errors.sum()) + 0.5) / (float(reviewed.sum()) + 1)
    likelihood = [
        float(
            (
                scipy.special.betaln(errors + m * share, reviewed - errors + m * (1 - share))
                - scipy.special.betaln(m * share, m - m * share)
            ).sum()
        )
        for m in STRENGTHS
    ]
    strength = float(STRENGTHS[int(np.argmax(likelihood))])
    return np.asarray((errors + strength * share) / (reviewed + strength), np.float64)
