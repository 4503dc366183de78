"""Judges a certification sample: thresholds that keep the promise, group by group, on plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from schemas.reviews import GroupPlan
from tasks.contract.declare import Candidates, Promise
from tasks.statistics.bounds import TRUSTED, Bools, Floats, ReviewerError
from tasks.statistics.planning import Certificate, Precisions, both_precisions, certify
from tasks.statistics.threshold_tests import Evidence, Sample, accepted_counts, gate_a, gate_b

_NO_LADDER: Final = (
    "no threshold was likely to pass with so few reviews when the sample was planned, or no label has a p(correct), so "
    "none was drawn; plan with more minutes"
)


@dataclass(frozen=True)
class Reviewed:
    """The certification sample with its verdicts."""

    scores: Floats
    """(n,) p(correct) by the calibrator of the round; NaN: never accepted."""
    wrong: Bools
    """(n,) verdicts; disputed labels count as wrong."""
    classes: tuple[str, ...]
    """(n,) class of each."""


@dataclass(frozen=True)
class Judged:
    """The result for one declared group."""

    plan: GroupPlan
    classes: tuple[str, ...]
    """Those of the group that the promise is about."""
    left_out: tuple[str, ...]
    """Those without a label in the sample: they go to people."""
    certificate: Certificate
    precisions: Precisions
    limit: float
    """Share of errors that was tested at the threshold shown."""
    delta: float
    """Level of the test."""
    labels: int
    """Labels of `classes` on the certify side."""
    accepted: int
    """Of them, those that are accepted."""
    drawn: int
    """Sampled labels of the group."""


def judge(
    reviewed: Reviewed,
    groups: Sequence[GroupPlan],
    candidates: Candidates,
    promise: Promise,
    delta: float,
    reviewers: ReviewerError = TRUSTED,
    *,
    whole: bool = True,
) -> list[Judged]:
    """Test every group's ladder on its part of the sample.

    delta is shared out equally among the groups, after what the bounds on the reviewers' errors use up once for all.

    A class of which no label was drawn is left out of its group, so its labels go to people. Which classes these are
    depends on the sample, so the others are no set that was fixed beforehand. With N labels of the group at or above a
    threshold, N' of them in classes that are kept, the accepted ones break the promise only if more than (1 - T) N' are
    wrong, and then as many are among all N; so the sample tests that of the N, whichever classes it happened to hold.
    Gate "delivered" needs no such care: people keep what is correct of a class that is left out, so the delivered
    labels of the whole group lose wrong ones alone.

    Args:
        reviewed: The whole draw with its verdicts.
        groups: As declared, before it was reviewed.
        candidates: All labels; under gate "accepted" the ones that the sample was drawn from, unless not `whole`.
        promise: What is to be certified.
        delta: The part of 1 - confidence that this look may spend.
        reviewers: What they miss, at most; its bounds must hold with what they spend of this delta.
        whole: Whether candidates are just the labels that were drawn from; if some came or went since, the test that
            needs no sizes is taken, and the promise is about the labels as they were.
    """
    # gate_a and gate_b take off what the reviewers' bounds spent; here that is done once for all groups.
    each = (delta - reviewers.spent) / len(groups) + reviewers.spent
    return [_judge(reviewed, group, candidates, promise, each, reviewers, whole) for group in groups]


def _judge(
    reviewed: Reviewed,
    group: GroupPlan,
    candidates: Candidates,
    promise: Promise,
    delta: float,
    reviewers: ReviewerError,
    whole: bool,
) -> Judged:
    classes = np.array(reviewed.classes, dtype=np.str_)
    part = np.isin(classes, group.classes)
    sample = Sample(reviewed.scores[part], reviewed.wrong[part])
    seen = set(classes[part].tolist())
    # Where no ladder was declared, nothing was to be drawn.
    kept = tuple(name for name in group.classes if name in seen or not group.thresholds)
    scores = candidates.scores[candidates.of(group.model_copy(update={"classes": kept}))]
    drawn_from = candidates.scores[candidates.of(group)]
    thresholds = np.array(group.thresholds, np.float64)
    evidence = _evidence(sample, thresholds, scores, drawn_from, promise, delta, reviewers, whole)
    certificate = certify(evidence, int(part.sum()))
    if not group.thresholds:
        certificate = replace(certificate, refusal=_NO_LADDER)
    threshold = certificate.threshold
    step = 0 if threshold is None else int(np.flatnonzero(thresholds == threshold)[0])
    accepted = int((scores >= threshold).sum()) if threshold is not None else 0
    precisions = both_precisions(sample, threshold, 1 - promise.confidence)
    if promise.gate == "accepted":
        precisions = _delivered_of_region(precisions, scores, threshold)
    return Judged(
        plan=group,
        classes=kept,
        left_out=tuple(name for name in group.classes if name not in kept),
        certificate=certificate,
        precisions=precisions,
        limit=float(evidence.limits[step]) if len(thresholds) else 1 - promise.precision,
        delta=evidence.delta,
        labels=len(scores),
        accepted=accepted,
        drawn=int(part.sum()),
    )


def _evidence(
    sample: Sample,
    thresholds: Floats,
    kept: Floats,
    drawn_from: Floats,
    promise: Promise,
    delta: float,
    reviewers: ReviewerError,
    whole: bool,
) -> Evidence:
    if promise.gate == "delivered":
        return gate_b(sample, thresholds, promise.precision, delta, reviewers)
    counts = accepted_counts(drawn_from, thresholds)
    share = np.divide(accepted_counts(kept, thresholds), counts, out=np.ones(len(counts)), where=counts > 0)
    precision = 1 - (1 - promise.precision) * share
    return gate_a(sample, thresholds, counts if whole else None, precision, delta, reviewers)


def _delivered_of_region(found: Precisions, scores: Floats, threshold: float | None) -> Precisions:
    """Precision B where only labels of a region were drawn.

    Labels that people keep are correct by their word, so B is at least A, and so is its lower bound; the estimate takes
    the routed labels to be correct as often as their p(correct) says.
    """
    if threshold is None:
        return Precisions(found.accepted, found.accepted_at_least, float("nan"), 0.0, 0.0)
    routed = float(np.nansum(scores[~(scores >= threshold)]))
    accepted = int((scores >= threshold).sum())
    wrong = (1 - found.accepted) * accepted
    delivered = 1 - wrong / (accepted + routed) if accepted + routed else float("nan")
    return Precisions(
        accepted=found.accepted,
        accepted_at_least=found.accepted_at_least,
        delivered=delivered,
        delivered_at_least=found.accepted_at_least,
        automated=accepted / max(1, len(scores)),
    )
