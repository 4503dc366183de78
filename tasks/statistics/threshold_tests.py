"""Tests thresholds on a random sample of reviewed labels: gates A and B, fixed-sequence testing, groups of classes.

Gate A: of the labels that are accepted, at least T are correct. Gate B: of the labels that are delivered (the accepted
ones, and those that people reviewed and kept), at least T are correct. The exact test of gate B, `gate_b`, is about a
fixed population of known size; its proof for the whole sequence of thresholds stands there.

All rest on a simple random sample, drawn with our own seed from a fixed set of labels. A part of such a sample that is
cut out by a rule fixed beforehand is, given its size, a simple random sample of the part of the set that the rule cuts
out. So the sampled labels at or above a threshold stand for the accepted set, and the sampled labels that would be
delivered stand for the delivered set, whatever the labels, the scores and their clustering are. All labels of one score
are accepted together or not at all; a label whose score is NaN never is.

Fixed-sequence testing (A. Angelopoulos, S. Bates, E. Candès, M. Jordan and L. Lei, Learn then Test, 2021): thresholds
in an order that is fixed before the validation labels are reviewed, each tested at the full delta, until the first
one fails. The chance that any certified threshold breaks the guarantee is at most delta, because the first threshold in
the order that breaks it has to pass a valid test.

Several groups at once: each certified group has a guarantee of its own, kept together with confidence 1 - delta: each
is tested at delta / K (Bonferroni). Classes too rare for a guarantee of their own form one declared group; the
guarantee is then about that group as a whole, not about each class in it. Groups are declared before validation labels
are reviewed.
"""

import functools
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from numpy.typing import ArrayLike

from vouch_labels.tasks.statistics.bounds import (
    TRUSTED,
    Bools,
    Floats,
    Ints,
    ReviewerError,
    binomial_p,
    hypergeometric_p,
    hypergeometric_upper_bound,
    labels_needed,
    upper_bound,
)

STEPS: Final = 100

SPARE_ERRORS: Final = 5
"""Errors that a group's expected reviews must be able to bear for the group to be worth testing."""
FIRST_TEST: Final = 0.8
"""Part of delta of the first test of a sample."""
GROWTH: Final = 0.1
"""Part of delta for labels that come after the first test has certified (`monitoring.Growth`)."""
NEXT_TEST: Final = 1 - FIRST_TEST - GROWTH
"""A test, and what its certificate is extended to, may spend this much of what those before could."""

_ROUNDING: Final = 1e-9
_LEAST_LEVEL: Final = 1e-12
_FEW: Final = 250
"""Sampled labels up to which raising levels is worth the search; with more it hardly certifies more."""
_WEAKEST: Final = 0.5
"""The highest level."""
_TOLERANCE: Final = 0.01
_CAUTION: Final = 0.5
"""Standard deviations by which fewer labels are taken to be correct than the sample suggests, for what is missed."""
_REACH: Final = 5
"""Standard deviations of a count; beyond lies next to nothing."""


@dataclass(frozen=True)
class Sample:
    """Reviewed labels that were drawn without replacement, each set of n with equal chance."""

    scores: Floats
    """(n,) p(correct); NaN: never accepted."""
    wrong: Bools
    """(n,) verdict of the reviewer."""


@dataclass(frozen=True)
class Population:
    """The labels that a guarantee is about."""

    labels: int
    """M without an answer when the sample was drawn from them."""
    known_correct: int = 0
    """C others that reviewers had called correct by then: they are delivered too."""
    known_wrong: int = 0
    """R others that they had called wrong."""


@dataclass(frozen=True)
class Evidence:
    """What a sample says of L thresholds, strict to loose."""

    thresholds: Floats
    reviewed: Ints
    """(L,) sampled labels that stand for the set in question."""
    errors: Ints
    """(L,) accepted and wrong among them."""
    limits: Floats
    """(L,) share of errors that is tested, 1 - T after correction for what reviewers miss."""
    p_values: Floats
    """(L,) of "fewer than T of the set are correct"."""
    delta: float
    """What is left of the guaranteed delta for these tests; the rest was spent on the correction."""
    sizes: Ints | None = None
    """(L,) labels of the set, where the test knows them."""
    delivered: "DeliveredTest | None" = None
    """What the exact test of gate B is about."""
    part: float | None = None
    """Part of the guaranteed delta that the level `delta` comes of, where they differ."""

    def bound(self, step: int) -> float:
        """Upper bound of the share of errors at one threshold, as reviewers see them, at confidence 1 - delta.

        The least share s at which the test of 1 - s would pass. Where the exact test of gate B assumes that reviewers
        miss some wrong labels, it counts those too.
        """
        errors, reviewed = int(self.errors[step]), int(self.reviewed[step])
        if self.delivered is not None:
            return self.delivered.bound(errors, reviewed - errors, self.delta)
        if self.sizes is None:
            return float(upper_bound(errors, reviewed, self.delta))
        return hypergeometric_upper_bound(errors, reviewed, int(self.sizes[step]), self.delta)


def gate_a(
    sample: Sample,
    thresholds: Floats,
    accepted: Ints | None,
    precision: float | Floats,
    delta: float,
    reviewers: ReviewerError = TRUSTED,
    missed: float = 0.0,
) -> Evidence:
    """Test the precision of the accepted set at every threshold.

    With n_t sampled labels at or above t, k_t of them wrong, of N_t accepted ones: p(t) = P(Hypergeometric(N_t,
    floor((1-T) N_t) + 1, n_t) <= k_t). Reviewers who miss wrong labels thin the count: then p(t) = P(Binomial(n_t,
    (1-T)(1-eta)) <= k_t), eta the upper bound of the share that they miss, and its delta is taken off. The sample comes
    from a set that holds every label at or above the loosest threshold, of the (L,) descending thresholds fixed before
    it was reviewed. Where the (L,) accepted labels are unknown (None), the binomial test stands for the hypergeometric
    one, which it bounds. precision is one T for all thresholds or (L,) one for each.

    missed is an assumption instead of a measurement: reviewers would call correct at most this share of the wrong
    labels of each accepted set. The limit is then (1-T)(1-missed), and the hypergeometric test stays: a set with more
    than (1-T) N_t wrong labels has more than (1-T)(1-missed) N_t that are called wrong. That is about the share in the
    set as it is, not about a chance that holds on average.
    """
    scores = _orderable(sample.scores)
    limit = np.full(len(thresholds), (1 - precision) * (1 - max(reviewers.accepted, missed)))
    reviewed, errors = _at_or_above(scores, thresholds), _at_or_above(scores[sample.wrong], thresholds)
    sizes = None if reviewers.accepted > 0 else accepted
    if sizes is None:
        p_values = binomial_p(errors, reviewed, limit)
    else:
        p_values = hypergeometric_p(errors, reviewed, sizes, limit)
    return Evidence(thresholds, reviewed, errors, limit, p_values, delta - reviewers.spent, sizes)


def gate_b(
    sample: Sample, thresholds: Floats, precision: float, delta: float, population: Population, missed: float = 0.0
) -> Evidence:
    """Test the precision of the delivered labels of a fixed population at every threshold: exact, and for all of them.

    The sample is a simple random one, n of the M labels of the population. Verdicts are what reviewers would give,
    fixed before the draw. G labels of the population are called correct. At a threshold, w of the accepted ones are
    called wrong, k of these are sampled, and so corrected; the sample has g that are called correct, whatever the
    threshold. So u = w - k wrong labels are delivered unseen, with G + C that are called correct. If reviewers miss at
    most the share `missed` = eta of all wrong labels, E = e (M - G + R) of the latter are wrong at most, where
    e = eta / (1 - eta). The guarantee is broken iff u + E > (1-T)(u + G + C), that is iff

        u > c(G) = ((1-T)(G+C) - e (M-G+R)) / T.

    Rule: a threshold passes iff p(k, g) = P(Hypergeometric(D, W0, k+g) <= k) is at most a level, where
    D = M - (n-k-g) and W0 = floor(k + L(g) (D+C-k)) + 1, at most D. L(g) is the share c / (c + G + C) that wrong labels
    have among those delivered unseen when the guarantee is just kept, at a careful estimate of G, M/n times g less half
    a standard deviation; with eta = 0 it is 1 - T whatever G is, and W0 the least w that breaks the guarantee if no
    wrong label is routed but those of the sample. Where c is negative p is 1. So p is the test of one threshold, with
    an estimate of what is missed; the guarantee rests on the level and the proof, which hold for any such rule.

    Proof for the whole sequence. c depends neither on the threshold nor on the sample, and u never falls from strict to
    loose. So if a certified threshold is broken, the first broken one, I, has passed. Let Q(g) be the largest k that
    passes. Put the wrong labels in order from strict to loose and let K be how many sampled ones come before the m-th
    unsampled one, m = max(floor(c) + 1, 0). At I at least m are unsampled, so K <= k_I <= Q(g). Given g, the sampled
    wrong labels are a simple random n - g of the M - G. So the chance that a broken threshold is certified is at most

        sum over g of HG(g; M, G, n) P(HG(M-G, m(G) + Q(g), n-g) <= Q(g)),

    whatever the scores are, and just that where each threshold adds one label. That holds for any Q, so levels may
    depend on g: they start at delta, or less where the maximum over G of that sum would exceed delta, and are then
    raised for each Q(g) as long as it does not (`_rule`): with few labels a count seldom meets delta just so. That Q
    never falls in g is shown at `_critical`.

    Labels without a score are never accepted. Several groups of classes are each tested with their own population,
    sample and part of delta; `missed` is then about each group.

    Raises:
        ValueError: The sample is larger than the population, or missed is not in [0, 1).
    """
    drawn = len(sample.scores)
    if drawn > population.labels or not 0 <= missed < 1:
        raise ValueError(f"{drawn} of {population.labels} labels were drawn; {missed} of the wrong ones are missed")
    errors = _at_or_above(_orderable(sample.scores[sample.wrong]), thresholds)
    correct = int((~sample.wrong).sum())
    test = DeliveredTest(population, drawn, precision, missed)
    level = _level(test, delta, correct) if drawn else delta
    limits = np.full(len(thresholds), 1 - precision)
    return Evidence(
        thresholds, errors + correct, errors, limits, test.p(errors, correct), level, delivered=test, part=delta
    )


@dataclass(frozen=True)
class DeliveredTest:
    """The exact test of gate B: see `gate_b` for the symbols."""

    population: Population
    drawn: int
    precision: float
    missed: float

    def size(self, errors: ArrayLike, correct: ArrayLike) -> Ints:
        """D, all that may be delivered but is not known to be wrong and routed."""
        return np.asarray(self.population.labels - self.drawn + np.asarray(errors) + np.asarray(correct), np.int64)

    def p(self, errors: ArrayLike, correct: ArrayLike) -> Floats:
        """P-value of k accepted wrong and g correct labels of the sample; 1 without any of them."""
        count, size = np.asarray(errors), self.size(errors, correct)
        # Of the others none is allowed where c is negative.
        least = count + self.limit(correct) * (size + self.population.known_correct - count)
        broken = np.floor(least + _ROUNDING).astype(np.int64) + 1
        return _at_most(count, size, np.clip(broken, 0, size), count + np.asarray(correct))

    def limit(self, correct: ArrayLike) -> Floats:
        """L(g), the share c / (c + G + C) at the estimate of G; -1 where c is negative."""
        kept, missed = self._expected(correct)
        excess, delivered = (1 - self.precision) * kept - missed, kept - missed
        share = np.divide(excess, delivered, out=np.zeros(np.shape(kept)), where=delivered > 0)
        return np.where(excess < -_ROUNDING, -1.0, share)

    def least_unseen(self, correct: int) -> int:
        """m: this many unseen wrong labels break the guarantee where G are called correct."""
        excess = (1 - self.precision) * (correct + self.population.known_correct) - float(self._missed(correct))
        return max(int(np.floor(excess / self.precision + _ROUNDING)) + 1, 0)

    def bound(self, errors: int, correct: int, level: float) -> float:
        """The least share s at which precision 1 - s would pass at this level."""
        size, reviewed = int(self.size(errors, correct)), errors + correct
        if not correct:
            return 1.0
        # As many wrong ones as there can be pass, for a correct one was seen.
        low, high = errors, size
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _at_most(errors, size, middle, reviewed) <= level else (middle, high)
        limit = (high - 1 - errors) / (size + self.population.known_correct - errors)
        kept, missed = self._expected(correct)
        return float(np.clip(limit + (1 - limit) * missed / kept, 0.0, 1.0))

    def _expected(self, correct: ArrayLike) -> tuple[Floats, Floats]:
        """G + C and E as the sample suggests."""
        count, drawn = np.asarray(correct), max(self.drawn, 1)
        spread = np.sqrt(count * (drawn - count) / drawn * (1 - self.drawn / max(self.population.labels, 1)))
        found = self.population.labels * np.maximum(count - _CAUTION * spread, 0) / drawn
        return np.asarray(found + self.population.known_correct, np.float64), self._missed(found)

    def _missed(self, correct: ArrayLike) -> Floats:
        """E: most wrong labels that are called correct, where G of the population are."""
        called_wrong = self.population.labels - np.asarray(correct) + self.population.known_wrong
        return np.asarray(self.missed / (1 - self.missed) * called_wrong, np.float64)


def _at_most(errors: ArrayLike, labels: ArrayLike, wrong: ArrayLike, reviewed: ArrayLike) -> Floats:
    """P(Hypergeometric <= k), 1 where nothing is drawn, though it be from nothing."""
    chance = scipy.stats.hypergeom.cdf(errors, labels, wrong, reviewed)
    return np.asarray(np.where(np.asarray(reviewed) > 0, chance, np.asarray(errors) >= 0), np.float64)


def _level(test: DeliveredTest, delta: float, correct: int) -> float:
    """Level of a sample with g correct labels: just the k up to Q(g) pass."""
    level, critical = _rule(test, delta)
    most = min(int(critical[correct]), test.drawn - correct)
    return max(level, float(test.p(most, correct))) if most >= 0 else level


@functools.lru_cache(maxsize=512)
def _rule(test: DeliveredTest, delta: float) -> tuple[float, Ints]:
    """A level and Q(g), at which a broken threshold is certified with chance delta at most."""
    level, critical = delta, _critical(test, delta)
    while (chance := _worst(test, critical, delta)) > delta:
        level *= min(0.98, delta / chance)
        if level <= _LEAST_LEVEL:
            # Passes only where p is 0, which is where the sample excludes that the guarantee is broken.
            return 0.0, _critical(test, 0.0)
        critical = _critical(test, level)
    return level, _filled(test, critical, delta) if test.drawn <= _FEW else critical


def _filled(test: DeliveredTest, critical: Ints, delta: float) -> Ints:
    """Let k pass at the least g that delta allows, one k after the other; Q stays a function that never falls.

    A k passes at no g where p is above `_WEAKEST`, so that p tells the k that pass from those that do not.
    """
    for errors in range(test.drawn + 1):
        places = np.arange(test.drawn - errors + 1)
        weak = int((test.p(np.full(len(places), errors), places) > _WEAKEST).sum())
        low = max(int(np.searchsorted(critical, errors - 1)), weak) - 1
        start = high = int(np.searchsorted(critical[: len(places)], errors))
        while high - low > 1:
            middle = (low + high) // 2
            tried = np.where(np.arange(test.drawn + 1) >= middle, np.maximum(critical, errors), critical)
            low, high = (low, middle) if _worst(test, tried, delta, middle, start) <= delta else (middle, high)
        if high == len(places):
            return critical
        critical[high:] = np.maximum(critical[high:], errors)
    return critical


def _critical(test: DeliveredTest, level: float) -> Ints:
    """Q(g) for g = 0 .. n: the most accepted wrong labels that pass; -1 where none do.

    p never falls in k: one more adds one to D, W0 and the draws alike; the new label is a wrong one that is drawn or
    not, so the count of wrong ones drawn rises by one at most. p never rises in g: D and the draws grow by one and W0
    does not fall, since L does not (g less half a standard deviation rises in g where it is above 0); so the count of
    wrong ones drawn does not fall either. Hence bisection finds the least g for each k, and Q never falls (where g
    leaves no room for k wrong ones, Q may as well keep its value).
    """
    drawn = test.drawn
    most = _last(lambda k: bool(test.p(k, drawn - k) <= level), drawn)
    counts = np.arange(most + 1)
    low, high = np.full(most + 1, -1), drawn - counts
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 0)
        passes = test.p(counts, middle) <= level
        low, high = np.where(passes, low, middle), np.where(passes, middle, high)
    critical = np.full(drawn + 1, -1)
    np.maximum.at(critical, high, counts)
    return np.maximum.accumulate(critical)


def _worst(test: DeliveredTest, critical: Ints, delta: float, low: int = 0, high: int | None = None) -> float:
    """Upper bound of the chance to certify a broken threshold, over all G: exact enough to compare it with delta.

    low and high: only over those G for which `_chance` looks at a g of low .. high, since there alone Q has changed.

    Branch and bound. For fixed m the chance of K <= Q(g) does not fall as G grows: let the last wrong label become a
    correct one; then g does not fall, nor does Q(g), and K does not grow (where fewer than m are unsampled, K counts
    all that are sampled). It does not grow with m. That the m-th unsampled one exists means K <= M - G - m, which falls
    in G. So over a <= G <= b the chance is at most that for G = b, m = m(a), K <= min(Q(g), M - a - m(a)).
    """
    best = 0.0

    def bounded(first: int, last: int) -> tuple[float, int, int]:
        nonlocal best
        exact = _chance(test, critical, last, last)
        best = max(best, exact)
        return -(_chance(test, critical, first, last) if first < last else exact), first, last

    labels, reach = test.population.labels, _REACH * (np.sqrt(test.drawn) / 2 + 1) + 2
    each = labels / max(test.drawn, 1)
    lowest = max(0, int((low - reach) * each))
    heap = [bounded(lowest, labels if high is None else min(labels, int((high + reach) * each) + 1))]
    while heap:
        bound, first, last = heapq.heappop(heap)
        if best > delta or -bound <= max(delta, best + _TOLERANCE * delta):
            return best if best > delta else -bound
        middle = (first + last) // 2
        heapq.heappush(heap, bounded(first, middle))
        heapq.heappush(heap, bounded(middle + 1, last))
    return best


def _chance(test: DeliveredTest, critical: Ints, first: int, last: int) -> float:
    """Chance of K <= Q(g) for G = last, with m and the most of K of G = first; of G itself where both are G."""
    labels, drawn = test.population.labels, test.drawn
    wrong, least = labels - last, test.least_unseen(first)
    # All but a negligible part of g, which is counted as if K <= Q(g) held.
    mean = drawn * last / labels
    reach = _REACH * (np.sqrt(mean * wrong / labels) + 1)
    low, high = max(0, drawn - wrong, int(mean - reach)), min(drawn, last, int(mean + reach) + 1)
    correct = np.arange(low, high + 1)
    share = _chances(correct, labels, last, drawn)
    most = np.minimum(critical[correct], labels - first - least)
    inside = most >= 0
    if not inside.any():
        return max(0.0, 1 - float(share.sum()))
    most, called = most[inside], drawn - correct[inside]
    size = np.clip(least + most, 0, wrong)
    most = np.minimum(np.minimum(most, size), called)
    # The sum of the chances of `most`, one less and so on; each is the one before times a ratio.
    fewer = most[:, None] - np.arange(most.max())
    ratio = fewer * (wrong - size - called + most)[:, None] - fewer * (most[:, None] - fewer)
    ratio = np.maximum(ratio, 0) / ((size[:, None] - fewer + 1) * (called[:, None] - fewer + 1))
    passing = _chances(most, wrong, size, called) * (1 + np.cumprod(ratio, axis=1).sum(axis=1))
    return float(share[inside] @ np.minimum(passing, 1)) + max(0.0, 1 - float(share.sum()))


def _chances(count: Ints, labels: int, marked: ArrayLike, drawn: ArrayLike) -> Floats:
    """As scipy.stats.hypergeom.pmf(count, labels, marked, drawn), to eight digits and seventy times as fast."""
    marks, draws = np.asarray(marked, np.int64), np.asarray(drawn, np.int64)
    possible = (draws - count <= labels - marks) & (count <= marks) & (count <= draws)
    rest = np.where(possible, draws - count, 0)
    found = _log_choose(marks, np.where(possible, count, 0)) + _log_choose(labels - marks, rest)
    return np.where(possible, np.exp(found - _log_choose(labels, draws)), 0.0)


def _log_choose(things: ArrayLike, taken: ArrayLike) -> Floats:
    every, count = np.asarray(things, np.float64), np.asarray(taken, np.float64)
    log = scipy.special.gammaln
    return np.asarray(log(every + 1) - log(count + 1) - log(every - count + 1), np.float64)


def _last(holds: Callable[[int], bool], most: int) -> int:
    """The last of 0 .. most for which something holds that holds up to there; -1 where it never does."""
    low, high = -1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def binomial_gate_b(
    sample: Sample, thresholds: Floats, precision: float, delta: float, reviewers: ReviewerError = TRUSTED
) -> Evidence:
    """Test the precision of a delivered set of unknown size at every threshold, with reviewers' errors as measured.

    Sampled labels that are routed and wrong are dropped, since people remove or fix them. Of the n_d that are left, k
    are accepted and wrong: p(t) = P(Binomial(n_d, 1-T) <= k), an upper bound of the hypergeometric one, whose set has a
    unknown size. A label that people fix is delivered correct but not counted, which is on the safe side.

    Reviewers who miss wrong labels leave some in the routed part too. With r of the sampled labels routed and called
    wrong, at most q = u/(1-u) such labels come on each delivered one, u being the Clopper-Pearson bound of r/(r + n_d);
    they leave at most eta_r/(1-eta_r) q wrong ones each. So the test is at (1-T - q eta_r/(1-eta_r)) (1-eta_a); a limit
    of zero or less certifies nothing. Half of what the bounds of eta left of delta goes to u.

    The sample may be drawn from the set that the guarantee is about, or from all of its labels at or above some score
    below the loosest threshold: leaving out labels that all go to people leaves out correct ones only, unless reviewers
    miss wrong ones, so it is on the safe side for reviewers who can be trusted.
    """
    scores, wrong = _orderable(sample.scores), sample.wrong
    errors = _at_or_above(scores[wrong], thresholds)
    delivered = errors + np.int64((~wrong).sum())
    delta_left = delta - reviewers.spent
    limits = np.full(len(thresholds), 1 - precision)
    if reviewers.routed > 0:
        delta_left /= 2
        routed_wrong = np.int64(wrong.sum()) - errors
        share = upper_bound(routed_wrong, routed_wrong + delivered, delta_left)
        each = np.divide(share, 1 - share, out=np.full(len(share), np.inf), where=share < 1)
        limits = limits - each * reviewers.routed / (1 - reviewers.routed) if reviewers.routed < 1 else limits * 0
    limits = np.maximum(limits * (1 - reviewers.accepted), 0)
    p_values = np.where(limits > 0, binomial_p(errors, delivered, limits), 1.0)
    return Evidence(thresholds, delivered, errors, limits, p_values, delta_left)


def accepted_counts(scores: Floats, thresholds: Floats) -> Ints:
    """Labels at or above each threshold, (L,)."""
    # Not by sorting, which takes two copies of the scores of all labels.
    return np.array([np.count_nonzero(scores >= threshold) for threshold in thresholds], np.int64)


def expected_wrong(scores: Floats) -> Floats:
    """Expect how many of the labels with the best scores are wrong: sums of 1 - p, (n + 1,) for 0 to n labels.

    scores: (N,) p(correct); n of them are finite.
    """
    # In place, since there may be tens of millions.
    known = scores[np.isfinite(scores)]
    known.sort()
    wrong = np.empty(len(known) + 1)
    wrong[0] = 0
    np.subtract(1, known[::-1], out=wrong[1:])
    np.cumsum(wrong[1:], out=wrong[1:])
    return wrong


def _orderable(scores: Floats) -> Floats:
    return np.where(np.isnan(scores), -np.inf, scores)


def _at_or_above(scores: Floats, thresholds: Floats) -> Ints:
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left"), np.int64)


def threshold_grid(scores: Floats, steps: int = STEPS) -> Floats:
    """Thresholds from strict to loose, about equally many labels apart: different scores, descending.

    The last accepts everything; empty where there is no score. NaN is left out.
    """
    known = scores[np.isfinite(scores)]
    known.sort()
    known = known[::-1]
    if not len(known):
        return np.zeros(0)
    ranks = np.linspace(0, len(known), steps + 1)[1:]
    return np.asarray(np.unique(known[np.maximum(np.ceil(ranks).astype(np.int64), 1) - 1])[::-1], np.float64)


def certified_step(evidence: Evidence) -> int | None:
    """Index of the loosest certified threshold: the last before the first p-value above delta; None without any."""
    # So written, a p-value of NaN fails too.
    failed = ~(evidence.p_values <= evidence.delta)
    passed = int(np.argmax(failed)) if failed.any() else len(failed)
    return passed - 1 if passed else None


def certified_groups(labels: Ints, reviews: int, precision: float, delta: float) -> list[Ints]:
    """Divide classes into groups that can be certified; labels (C,) are those of each class in the population.

    The most frequent classes stand alone and the others are pooled: as many alone as leaves every group enough of the
    reviews, shared out by size, to bear `SPARE_ERRORS` errors at delta / K. Only the pooled group may have fewer when
    nothing better is possible. Class indices of the most frequent class come first, the pooled group last; a class
    without labels is in it.
    """
    order = np.argsort(-labels, kind="stable")
    total = int(labels.sum())
    for alone in range(len(labels), 0, -1):
        groups = [order[index : index + 1] for index in range(alone)]
        if alone < len(labels):
            groups.append(order[alone:])
        sizes = np.array([labels[group].sum() for group in groups])
        least = labels_needed(SPARE_ERRORS, 1 - precision, delta / len(groups))
        if total and (sizes * reviews >= least * total).all():
            return groups
    return [order]


def delta_of_test(delta: float, number: int) -> float:
    """Part of delta that a test of certification labels may spend; number is 1 for the first.

    Certifying again with more reviews, because the first result disappointed, is another test; tests at the full delta
    each time would break the guarantee in the end. So test i has delta F r^(i-1), and what its certificate is extended
    to delta H r^(i-1) (`delta_of_growth`), where F is `FIRST_TEST`, H `GROWTH` and r = 1 - F - H `NEXT_TEST`. Together

        sum over i of delta (F + H) r^(i-1) = delta (1 - r) sum over i of r^(i-1) = delta,

    so any number of tests and extensions spend at most delta. Of that the first test has 80 %, its extension 10 %, and
    all later ones share 10 %. Until 2026-12 the first i tests and their extensions spent delta (1 - .2^i); what they
    left, delta .2^i, is more than the delta .1^i that all later ones may spend now.
    """
    return delta * FIRST_TEST * NEXT_TEST ** (number - 1)


def delta_of_growth(delta: float, number: int) -> float:
    """Part of delta for labels that come after the test of this number has certified; see `delta_of_test`."""
    return delta * GROWTH * NEXT_TEST ** (number - 1)
