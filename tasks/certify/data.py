"""Reads a run with everything that was asked and answered about it, and declares what will be certified of it.

Groups, thresholds and the draw of the validation sample are fixed before any of its labels is reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from vouch_labels.schemas.campaign import Campaign, Gate
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import GroupPlan, ReviewPlan
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.resolve import Answers, resolve
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.statistics.bounds import TRUSTED, Bools, Floats, Ints, ReviewerError
from vouch_labels.tasks.statistics.planning import FitLabels, plan_gate_a
from vouch_labels.tasks.statistics.sampling import Drawn, certification_sample
from vouch_labels.tasks.statistics.threshold_tests import certified_groups, delta_of_test, threshold_grid
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

_GROUPS: Final = 10_000
"""More than a draw has groups, so that each round and group has an order of its own."""


@dataclass(frozen=True)
class Guarantee:
    """What is to be certified."""

    precision: float
    """T."""
    confidence: float
    """1 - delta of all groups and tests together."""
    gate: Gate


@dataclass(frozen=True)
class RunReviews:
    """What planning reviews and certifying use."""

    campaign: Campaign
    workspace: Store
    current: Current
    labels: RunLabels
    plans: list[tuple[ReviewPlan, pa.Table]]
    """Ascending numbers."""
    verdicts: pa.Table
    answers: Answers

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.campaign.run.name

    @property
    def guarantee(self) -> Guarantee:
        """What the campaign asks for."""
        routing = self.campaign.routing
        return Guarantee(routing.precision, routing.confidence, routing.gate)

    @property
    def seed(self) -> int:
        """Seed of the split and of every draw: that of the first plan, whatever the campaign says since."""
        return self.plans[0][0].seed if self.plans else self.campaign.routing.seed

    @property
    def fit_share(self) -> float | None:
        """Share of images kept for fitting, fixed by the first plan; None before it."""
        return self.plans[0][0].fit_share if self.plans else None

    def fit_side(self) -> Bools:
        """Say of each label whether its image is kept for fitting, (N,)."""
        return self.labels.fit_side(self.fit_share or 0.0, self.seed)


def read_run_reviews(campaign: Campaign) -> RunReviews:
    """Read all labels of a run, its plans and the workspace's verdicts.

    Raises:
        UserError: The run has not been run, or has no label.
        StoreError: A table, plan or file of verdicts is damaged.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
    if not labels.count:
        raise UserError(f"run {run!r} has no labels, so there is nothing to review or certify; see `vouch status`")
    verdicts = present_verdicts(workspace, current)
    return RunReviews(campaign, workspace, current, labels, read_plans(workspace, run), verdicts, resolve(verdicts))


@dataclass(frozen=True)
class Candidates:
    """All labels of a run, as certification sees them."""

    scores: Floats
    """(N,) p(correct) by the calibrator of the round; NaN: never accepted."""
    class_index: Ints
    """(N,) place in class_names."""
    class_names: tuple[str, ...]
    certify_side: Bools
    """(N,) whether the image is not kept for fitting."""

    def of(self, group: GroupPlan) -> Bools:
        """Mark the labels of a group on the certify side, (N,)."""
        places = [place for place, name in enumerate(self.class_names) if name in group.classes]
        return self.certify_side & np.isin(self.class_index, places)


def declare_groups(
    candidates: Candidates,
    fit: FitLabels,
    fit_classes: Ints,
    guarantee: Guarantee,
    reviews: int,
    test: int = 1,
    reviewers: ReviewerError = TRUSTED,
) -> tuple[GroupPlan, ...]:
    """Divide the classes into groups, and fix the threshold grid of each and the labels it is drawn from.

    Gate "accepted" draws where `plan_gate_a` predicts that most can be certified; a group for which no start is likely
    to pass has an empty threshold grid, and nothing of it is drawn. Gate "delivered" draws from the whole certify side
    with a threshold grid over all of it. fit_classes (n,) are the classes of the reviewed labels; reviews is the number
    of certification labels in all; test numbers the next test, which has a part of delta.
    """
    delta = delta_of_test(1 - guarantee.confidence, test)
    names = candidates.class_names
    counts = np.bincount(candidates.class_index[candidates.certify_side], minlength=len(names))
    members = certified_groups(counts, reviews, guarantee.precision, delta)
    groups = []
    for number, places in enumerate(members):
        inside = candidates.certify_side & np.isin(candidates.class_index, places)
        scores = candidates.scores[inside]
        plain = GroupPlan(
            name=_name(names, places, number, len(members)),
            classes=tuple(names[place] for place in sorted(places.tolist())),
            thresholds=(),
        )
        if guarantee.gate == "delivered":
            groups.append(plain.model_copy(update={"thresholds": tuple(threshold_grid(scores).tolist())}))
            continue
        chosen = np.isin(fit_classes, places)
        plan = plan_gate_a(
            scores,
            FitLabels(fit.scores[chosen], fit.wrong[chosen], fit.weights[chosen]),
            _part(reviews, inside, candidates.certify_side),
            1 - (1 - guarantee.precision) * (1 - reviewers.accepted),
            (delta - reviewers.spent) / len(members),
        )
        region = plan.region if len(plan.thresholds) else None
        found = {"thresholds": tuple(plan.thresholds.tolist()), "region": region, "power": plan.power}
        groups.append(plain.model_copy(update=found))
    return tuple(groups)


def draw_groups(
    candidates: Candidates, groups: Sequence[GroupPlan], gate: Gate, reviews: int, seed: int, number: int
) -> Drawn:
    """Draw the certification sample; a larger one of the same groups and number begins with the smaller.

    Gate "delivered": a simple random sample of the certify side. Gate "accepted": one of each group's region, shared
    out by the sizes of the groups. number is that of the declaration of groups; each has a draw of its own.
    """
    return draw_counts(candidates, groups, gate, parts_of(candidates, groups, gate, reviews), seed, number)


def parts_of(candidates: Candidates, groups: Sequence[GroupPlan], gate: Gate, reviews: int) -> list[int]:
    """Share reviews out to the groups, by size; one part for all under gate "delivered", whose draw is one."""
    if gate == "delivered":
        return [reviews]
    return [
        _part(reviews, candidates.of(group), candidates.certify_side) if group.thresholds else 0 for group in groups
    ]


def draw_counts(
    candidates: Candidates, groups: Sequence[GroupPlan], gate: Gate, counts: Sequence[int], seed: int, number: int
) -> Drawn:
    """As `draw_groups`, with so many labels of each group's region; what there is not cannot be drawn."""
    if gate == "delivered":
        return certification_sample(candidates.certify_side, sum(counts), seed, number * _GROUPS)
    drawn = [
        certification_sample(region_of(candidates, group), count, seed, number * _GROUPS + place)
        for place, (group, count) in enumerate(zip(groups, counts, strict=True))
    ]
    return Drawn(np.concatenate([one.rows for one in drawn]), np.concatenate([one.inclusion for one in drawn]))


def region_of(candidates: Candidates, group: GroupPlan) -> Bools:
    """Mark the labels that a group's sample is drawn from under gate "accepted", (N,)."""
    return candidates.of(group) & (candidates.scores >= (-np.inf if group.region is None else group.region))


def reviews_to_start(
    candidates: Candidates, fit: FitLabels, fit_classes: Ints, guarantee: Guarantee, reviews: int, test: int = 1
) -> int | None:
    """Find about how many reviews give some group a start that is likely to pass, doubling; None: no number does."""
    most = int(candidates.certify_side.sum())
    while reviews < most:
        reviews = min(2 * reviews, most)
        if any(group.thresholds for group in declare_groups(candidates, fit, fit_classes, guarantee, reviews, test)):
            return reviews
    return None


def _part(reviews: int, inside: Bools, side: Bools) -> int:
    return int(reviews * int(inside.sum()) / max(1, int(side.sum())))


def _name(names: tuple[str, ...], places: Ints, number: int, groups: int) -> str:
    if len(places) == 1:
        return names[int(places[0])]
    return "all classes" if groups == 1 else f"{len(places)} rarer classes" if number == groups - 1 else "several"
