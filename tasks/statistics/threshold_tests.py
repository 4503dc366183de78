"""Tests thresholds on a random sample of reviewed labels: gates A and B, fixed-sequence testing, groups of classes.

Gate A: of the labels that are accepted, at least T are correct. Gate B: of the labels that are delivered (the accepted
ones, and those that people reviewed and kept), at least T are correct.

Both rest on a simple random sample, drawn with our own seed from a fixed set of labels. A part of such a sample that is
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

from dataclasses import dataclass
from typing import Final

import numpy as np

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
NEXT_TEST: Final = 1 - FIRST_TEST
"""A test may spend this much of what the one before it could."""


@dataclass(frozen=True)
class Sample:
    """Reviewed labels that were drawn without replacement, each set of n with equal chance."""

    scores: Floats
    """(n,) p(correct); NaN: never accepted."""
    wrong: Bools
    """(n,) verdict of the reviewer."""


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

    def bound(self, step: int) -> float:
        """Upper bound of the share of errors at one threshold, as reviewers see them, at confidence 1 - delta."""
        errors, reviewed = int(self.errors[step]), int(self.reviewed[step])
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
) -> Evidence:
    """Test the precision of the accepted set at every threshold.

    With n_t sampled labels at or above t, k_t of them wrong, of N_t accepted ones: p(t) = P(Hypergeometric(N_t,
    floor((1-T) N_t) + 1, n_t) <= k_t). Reviewers who miss wrong labels thin the count: then p(t) = P(Binomial(n_t,
    (1-T)(1-eta)) <= k_t), eta the upper bound of the share that they miss, and its delta is taken off. The sample comes
    from a set that holds every label at or above the loosest threshold, of the (L,) descending thresholds fixed before
    it was reviewed. Where the (L,) accepted labels are unknown (None), the binomial test stands for the hypergeometric
    one, which it bounds. precision is one T for all thresholds or (L,) one for each.
    """
    scores = _orderable(sample.scores)
    limit = np.full(len(thresholds), (1 - precision) * (1 - reviewers.accepted))
    reviewed, errors = _at_or_above(scores, thresholds), _at_or_above(scores[sample.wrong], thresholds)
    sizes = None if reviewers.accepted > 0 else accepted
    if sizes is None:
        p_values = binomial_p(errors, reviewed, limit)
    else:
        p_values = hypergeometric_p(errors, reviewed, sizes, limit)
    return Evidence(thresholds, reviewed, errors, limit, p_values, delta - reviewers.spent, sizes)


def gate_b(
    sample: Sample, thresholds: Floats, precision: float, delta: float, reviewers: ReviewerError = TRUSTED
) -> Evidence:
    """Test the precision of the delivered set at every threshold.

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
    return _at_or_above(_orderable(scores), thresholds)


def _orderable(scores: Floats) -> Floats:
    return np.where(np.isnan(scores), -np.inf, scores)


def _at_or_above(scores: Floats, thresholds: Floats) -> Ints:
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left"), np.int64)


def threshold_grid(scores: Floats, steps: int = STEPS) -> Floats:
    """Thresholds from strict to loose, about equally many labels apart: different scores, descending.

    The last accepts everything; empty where there is no score. NaN is left out.
    """
    known = np.sort(scores[np.isfinite(scores)])[::-1]
    if not len(known):
        return np.zeros(0)
    ranks = np.linspace(0, len(known), steps + 1)[1:]
    return np.asarray(np.unique(known[np.maximum(np.ceil(ranks).astype(np.int64), 1) - 1])[::-1], np.float64)


def certified_step(evidence: Evidence) -> int | None:
    """Index of the loosest certified threshold: the last before the first p-value above delta; None without any."""
    failed = evidence.p_values > evidence.delta
    passed = int(np.argmax(failed)) if failed.any() else len(failed)
    return passed - 1 if passed else None


def certified_groups(labels: Ints, reviews: int, precision: float, delta: float) -> list[Ints]:
    """Divide classes into groups that can be certified; labels (C,) are those of each class on the certify side.

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

    The first test gets 80%, each later one 80% of what is left, so any number of tests spend at most delta. Certifying
    again with more reviews, because the first result disappointed, is such a test; tests at the full delta each time
    would break the guarantee in the end.
    """
    return delta * FIRST_TEST * NEXT_TEST ** (number - 1)
