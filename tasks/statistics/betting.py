"""Tests thresholds after any answer: a bet against "the guarantee is broken", which may be looked at at any time.

A bettor stakes a part of their wealth on each label of the sample, in the random order in which they were drawn, and
never more than they have. Where the guarantee is broken no bet is in their favour, so their wealth is a nonnegative
supermartingale that starts at 1, and ever reaches 1 / delta with a chance of at most delta (J. Ville, 1939). So a
threshold passes once it did, after however many answers, whoever looked at what meanwhile, and however many labels were
drawn since: that is one test, not one for each look. The bets are those on the mean of a finite population that is
drawn from without replacement (I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by betting,
2023, section 5).

For each threshold every label of a set of N has a value Z, known once it is reviewed; the guarantee is broken only if
the sum of all Z and a constant c is 0 or more. With S the sum of what was seen and m labels left, the mean of these is
then at least -(S + c) / m, so that of Y = Z + (S + c) / m is at least 0, and the bet multiplies the wealth by 1 - b Y
with a stake b in [0, 1 / max Y). The stake that grows fastest is taken, by what is expected of the next label: what was
seen, and what the scores say, which counts as much as `STRENGTH` labels.

- Gate "accepted": the set are the N labels at or above the threshold, Z is 1 for a label that is called wrong, and c is
  -(floor((1-T)(1-missed) N) + 1), as in `threshold_tests.gate_a`.
- Gate "delivered", with the symbols of `threshold_tests.gate_b`: the set is the whole population, Z is T for a label
  that is accepted and called wrong, T - 1 for one that is called correct, and e more for each that is called wrong; c
  is e R - (1-T) C. Wrong labels of the sample, which are corrected, count as delivered here, which is on the safe side.

What is broken depends neither on the sample nor on its order, so thresholds are tested strict to loose, each at the
full delta, until the first one fails (`threshold_tests.certified_step`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from vouch_labels.tasks.statistics.bounds import Floats, Ints
from vouch_labels.tasks.statistics.threshold_tests import Evidence, Population, Sample, accepted_counts, expected_wrong

FEWEST: Final = 400
"""Labels of a sample from which on it is tested after any answer too; of fewer such a test passes little."""
PART: Final = 0.25
"""Of the delta of a test of such a sample, which goes to the test after any answer; the exact test gets the rest."""
STRENGTH: Final = 40.0
"""Labels that the scores' own expectation counts as."""

_ROUNDING: Final = 1e-9
_LEAST_SHARE: Final = 1 / STRENGTH**2
"""That is expected of any kind, for the scores may be sure of what is not so."""
_MOST: Final = 0.95
"""Of the stake that could lose everything."""
_STEPS: Final = 4
"""Of Newton's method towards the best stake."""
_SHARES: Final = 100
_ROUNDS: Final = 2
"""A bound is found among so many shares, so often; to less than 1e-4."""
_OUTSIDE: Final = -1


def tested_any_time(reviews: int, population: int, honeypots: float) -> bool:
    """Whether a sample is tested after any answer: it is large, and what reviewers miss is assumed, not measured."""
    return min(reviews, population) >= FEWEST and not honeypots


@dataclass(frozen=True)
class Grid:
    """L thresholds, strict to loose, with what is known of them before anything of the sample is reviewed."""

    thresholds: Floats
    accepted: Ints
    """(L,) labels of the population at or above each."""
    wrong: Floats
    """(L,) how many of them are wrong, by their scores: the sum of 1 - p(correct)."""
    most_wrong: Floats
    """(L,) the same of all labels of the population that have a score."""

    def at(self, step: int, times: int) -> "Grid":
        """One threshold so many times."""
        rows = np.full(times, step)
        return Grid(self.thresholds[rows], self.accepted[rows], self.wrong[rows], self.most_wrong[rows])


def grid_of(scores: Floats, thresholds: Floats) -> Grid:
    """Count what scores, (N,) p(correct) of the population, say of L thresholds, strict to loose."""
    wrong = expected_wrong(scores)
    accepted = accepted_counts(scores, thresholds)
    return Grid(thresholds, accepted, wrong[accepted], np.full(len(thresholds), wrong[-1]))


@dataclass(frozen=True)
class Bets:
    """Bets on a sample of n labels in the order in which they were drawn, for each of L thresholds.

    There are K kinds of labels, of which the last is that of correct ones.
    """

    kinds: Ints
    """(n, L) kind of each label; -1: not in the set."""
    values: Floats
    """(K, L) Z of each kind."""
    sizes: Floats
    """(L,) labels of the set, N."""
    start: Floats
    """(L,) c, the constant."""
    expected: Floats
    """(K, L) share of each kind that the scores expect."""

    @cached_property
    def log_wealth(self) -> Floats:
        """(n + 1, L) natural logarithm of the wealth before the first label and after each; infinite: certain."""
        total, left = self.start.astype(np.float64), self.sizes.astype(np.float64)
        seen = self.expected * STRENGTH
        found = np.zeros((len(self.kinds) + 1, len(self.sizes)))
        columns, most = np.arange(len(self.sizes)), self.values.max(axis=0)
        for place, kinds in enumerate(self.kinds):
            outcomes, stake = _bet(self.values, total, left, seen)
            inside = kinds != _OUTSIDE
            found[place + 1] = found[place] + np.where(inside, np.log1p(-stake * outcomes[kinds, columns]), 0.0)
            rows, chosen = columns[inside], kinds[inside]
            total[rows] += self.values[chosen, rows]
            seen[chosen, rows] += 1
            left[rows] -= 1
            # If all that are left were of the worst kind, the guarantee would not be broken.
            found[place + 1, total + left * most < -_ROUNDING] = np.inf
        return found

    @cached_property
    def p_values(self) -> Floats:
        """(L,) of "the guarantee is broken", 1 over the most that the wealth ever was; 1 where no label was right.

        Known answers alone would let a few labels pass under gate "delivered" then, all of them wrong.
        """
        right = (self.kinds == len(self.values) - 1).any(axis=0)
        return np.where(right, np.exp(-self.log_wealth.max(axis=0)), 1.0)

    def answers_to(self, level: float) -> Floats:
        """(L,) about how many more labels of the sample let each threshold pass at this level; infinite: none do.

        Were the next ones as expected, and no stake changed.
        """
        total, left, seen = self.start.astype(np.float64), self.sizes.astype(np.float64), self.expected * STRENGTH
        inside = self.kinds != _OUTSIDE
        for kind, value in enumerate(self.values):
            count = (self.kinds == kind).sum(axis=0)
            total, left, seen[kind] = total + count * value, left - count, seen[kind] + count
        outcomes, stake = _bet(self.values, total, left, seen)
        growth = (seen / seen.sum(axis=0) * np.log1p(-stake * outcomes)).sum(axis=0)
        part = inside.mean(axis=0) if len(inside) else np.ones(len(self.sizes))
        missing = -np.log(level) - self.log_wealth.max(axis=0, initial=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            more = np.where(growth * part > 0, missing / (growth * part), np.inf)
        return np.asarray(np.where(missing <= 0, 0.0, np.where(more * part > left, np.inf, np.ceil(more))), np.float64)


def _bet(values: Floats, total: Floats, left: Floats, seen: Floats) -> tuple[Floats, Floats]:
    """Y of each kind, (K, L), and the stake, (L,)."""
    outcomes = values + total / np.maximum(left, 1)
    worst = outcomes.max(axis=0)
    share = seen / seen.sum(axis=0)
    mean = (share * outcomes).sum(axis=0)
    most = np.divide(_MOST, worst, out=np.zeros_like(worst), where=worst > _ROUNDING)
    # The growth, the mean of log(1 - b Y), is concave in b, so Newton's steps from an upper estimate lead to its top.
    stake = np.clip(-mean / (share * outcomes**2).sum(axis=0), 0, most)
    for _ in range(_STEPS):
        kept = outcomes / (1 - stake * outcomes)
        stake = np.clip(stake - (share * kept).sum(axis=0) / (share * kept**2).sum(axis=0), 0, most)
    return outcomes, np.where(mean < 0, stake, 0.0)


@dataclass(frozen=True)
class BetEvidence(Evidence):
    """What bets say of L thresholds; what is reviewed and wrong is what was by the last answer."""

    bets: Bets | None = None
    again: Callable[[int, Floats], Bets] | None = None
    """The bets at one threshold against each of so many precisions."""

    def bound(self, step: int) -> float:
        """As `Evidence.bound`."""
        low, high = 0.0, 1.0
        assert self.again is not None
        for _ in range(_ROUNDS):
            shares = np.linspace(low, high, _SHARES + 2)[1:-1]
            passing = self.again(step, 1 - shares).p_values <= self.delta
            first = int(np.argmax(passing)) if passing.any() else len(shares)
            low, high = (shares[first - 1] if first else low), (shares[first] if first < len(shares) else high)
        return float(high)


def bet_accepted(sample: Sample, grid: Grid, precision: float, delta: float, missed: float = 0.0) -> BetEvidence:
    """Bet against "of the accepted labels fewer than T are correct" at each threshold.

    The sample is in the order in which it was drawn, from a set that holds every label at or above the loosest
    threshold. missed: reviewers call at most this share of the wrong labels of each accepted set correct.
    """
    limits = np.full(len(grid.thresholds), (1 - precision) * (1 - missed))
    bets = _accepted(sample, grid, limits)
    inside, wrong = bets.kinds != _OUTSIDE, bets.kinds == 0

    def again(step: int, precisions: Floats) -> Bets:
        return _accepted(sample, grid.at(step, len(precisions)), 1 - precisions)

    reviewed, errors = inside.sum(axis=0), wrong.sum(axis=0)
    return BetEvidence(grid.thresholds, reviewed, errors, limits, bets.p_values, delta, bets=bets, again=again)


def _accepted(sample: Sample, grid: Grid, limits: Floats) -> Bets:
    broken = np.floor(limits * grid.accepted + _ROUNDING) + 1
    accepted = sample.scores[:, None] >= grid.thresholds[None, :]
    kinds = np.where(accepted, np.where(sample.wrong[:, None], 0, 1), _OUTSIDE)
    share = np.clip(grid.wrong / np.maximum(grid.accepted, 1), _LEAST_SHARE, 1 - _LEAST_SHARE)
    values = np.repeat([[1.0], [0.0]], len(limits), axis=1)
    return Bets(kinds, values, grid.accepted.astype(np.float64), -broken, np.stack([share, 1 - share]))


def bet_delivered(
    sample: Sample, grid: Grid, precision: float, delta: float, population: Population, missed: float = 0.0
) -> BetEvidence:
    """Bet against "of the delivered labels fewer than T are correct" at each threshold.

    The sample is in the order in which it was drawn, from the whole population. missed: reviewers call at most this
    share of all wrong labels correct.
    """
    limits = np.full(len(grid.thresholds), 1 - precision)
    bets = _delivered(sample, grid, 1 - limits, population, missed)
    errors = (bets.kinds == 0).sum(axis=0)

    def again(step: int, precisions: Floats) -> Bets:
        return _delivered(sample, grid.at(step, len(precisions)), precisions, population, missed)

    reviewed = errors + int((~sample.wrong).sum())
    return BetEvidence(grid.thresholds, reviewed, errors, limits, bets.p_values, delta, bets=bets, again=again)


def _delivered(sample: Sample, grid: Grid, precisions: Floats, population: Population, missed: float) -> Bets:
    each, steps = missed / (1 - missed), len(precisions)
    accepted = sample.scores[:, None] >= grid.thresholds[None, :]
    kinds = np.where(~sample.wrong[:, None], 2, np.where(accepted, 0, 1))
    values = np.stack([precisions + each, np.full(steps, each), precisions - 1])
    start = each * population.known_wrong - (1 - precisions) * population.known_correct
    wrong = np.minimum(np.stack([grid.wrong, grid.most_wrong - grid.wrong]), population.labels)
    shares = np.stack([*wrong, population.labels - wrong.sum(axis=0)]) / max(population.labels, 1)
    shares = np.maximum(shares, _LEAST_SHARE)
    return Bets(kinds, values, np.full(steps, float(population.labels)), start, shares / shares.sum(axis=0))
