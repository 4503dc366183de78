"""Reads a run with everything that was asked and answered about it, and declares what will be certified of it.

Groups, thresholds, the population and the draw of the validation sample are fixed before any of its labels is reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign, Gate, Unsampled
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Covered, TestBasis
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import GroupPlan, ReviewPlan
from vouch_labels.tasks.arrow import distinct
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import LabelNumbers, keep_numbers
from vouch_labels.tasks.reviews.log import check_log
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, Answers, resolve
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.shard.files import read_marker, shards_done
from vouch_labels.tasks.statistics.betting import BetEvidence, Grid, bet_accepted, bet_delivered
from vouch_labels.tasks.statistics.bounds import TRUSTED, Bools, Floats, Ints, ReviewerError
from vouch_labels.tasks.statistics.planning import FitLabels, plan_gate_a
from vouch_labels.tasks.statistics.sampling import BLOCKS, Drawn, certification_sample, generator
from vouch_labels.tasks.statistics.threshold_tests import (
    Evidence,
    Population,
    Sample,
    binomial_gate_b,
    certified_groups,
    gate_a,
    gate_b,
    threshold_grid,
)
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

BLOCK: Final = 50
"""Labels of a sample that are asked class by class before the next, where it is tested after any answer."""
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
    missed: float = 0.0
    """Share of the wrong labels that reviewers are assumed to miss at most."""
    unsampled: Unsampled = "accept"
    """What becomes of classes without a sampled label, where the test does not say."""

    @property
    def leaves_out(self) -> bool:
        """Whether classes are left out of what the guarantee is about: the test after any answer cannot do that."""
        return self.gate == "accepted" and self.unsampled == "review"


def guarantee_asked(campaign: Campaign) -> Guarantee:
    """What a campaign asks for."""
    routing = campaign.routing
    return Guarantee(routing.precision, routing.confidence, routing.gate, routing.missed, routing.unsampled)


@dataclass(frozen=True)
class RunReviews:
    """What planning reviews and certifying use."""

    campaign: Campaign
    workspace: Store
    current: Current
    plans: list[tuple[ReviewPlan, pa.Table]]
    """Ascending numbers."""
    verdicts: pa.Table
    answers: Answers

    @cached_property
    def labels(self) -> RunLabels:
        """The labels of the run, read when they are first needed.

        Raises:
            UserError: There is none.
            StoreError: A table is damaged.
        """
        with Ledger.load(self.workspace, self.run) as ledger:
            found = read_run_labels(self.workspace, self.run, ledger, self.current)
        if not found.count:
            raise _no_labels(self.run)
        return found

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.campaign.run.name

    @property
    def guarantee(self) -> Guarantee:
        """What the campaign asks for."""
        return guarantee_asked(self.campaign)

    @property
    def seed(self) -> int:
        """Seed of every draw: that of the first plan, whatever the campaign says since."""
        return self.plans[0][0].seed if self.plans else self.campaign.routing.seed

    @cached_property
    def numbers(self) -> LabelNumbers:
        """Numbers of the run's labels, (N,)."""
        return self.labels.numbers

    @cached_property
    def codes(self) -> NDArray[np.int8]:
        """What people said of each label, (N,), as `Answers.wrong_of` has it."""
        return self.labels.said(self.answers.ids, self.answers.wrong_of(self.answers.ids), NO_ANSWER)

    @property
    def unknown(self) -> Bools:
        """Labels of the run that no person has looked at, (N,)."""
        return np.asarray(self.codes == NO_ANSWER)

    def covered(self, chosen: Bools, plan: int = 1) -> Covered:
        """Keep which labels, (N,), a sample is drawn from."""
        return Covered(
            population=keep_numbers(self.workspace, self.numbers[chosen]),
            labels=int(chosen.sum()),
            images=int(np.count_nonzero(np.bincount(self.labels.image_index[chosen]))),
            known=keep_numbers(self.workspace, self.numbers[~self.unknown]),
            plan=plan,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def read_run_reviews(campaign: Campaign) -> RunReviews:
    """Read what was asked and answered about a run; its labels are read when they are first needed.

    Raises:
        UserError: The run has not been run, or has no label.
        StoreError: A table, plan or file of verdicts is damaged, or the log misses one.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    done = shards_done(workspace, run, current.fingerprint)
    markers = (read_marker(workspace, run, shard, current.fingerprint) for shard in done)
    if not any(marker is not None and marker.counts.labels for marker in markers):
        raise _no_labels(run)
    check_log(workspace)
    verdicts = present_verdicts(workspace, current)
    return RunReviews(campaign, workspace, current, read_plans(workspace, run), verdicts, resolve(verdicts))


def _no_labels(run: str) -> UserError:
    return UserError(f"run {run!r} has no labels, so there is nothing to review or certify; see `vouch status`")


@dataclass(frozen=True)
class Candidates:
    """All labels of a run, as certification sees them."""

    scores: Floats
    """(N,) p(correct) by the calibrator of the round; NaN: never accepted."""
    class_index: Ints
    """(N,) place in class_names."""
    class_names: tuple[str, ...]
    population: Bools
    """(N,) labels that samples are drawn from and that will be covered: those without an answer when it was fixed."""
    order: Ints | None = None
    """(N,) the labels in an order that does not change with what else the run has; None: as they are."""

    def of(self, group: GroupPlan) -> Bools:
        """Mark the labels of a group in the population, (N,)."""
        places = [place for place, name in enumerate(self.class_names) if name in group.classes]
        return self.population & np.isin(self.class_index, places)


def declare_groups(
    candidates: Candidates,
    fit: FitLabels,
    fit_classes: Ints,
    guarantee: Guarantee,
    reviews: int,
    delta: float,
    reviewers: ReviewerError = TRUSTED,
) -> tuple[GroupPlan, ...]:
    """Divide the classes into groups, and fix the threshold grid of each and the labels it is drawn from.

    Gate "accepted" draws where `plan_gate_a` predicts that most can be certified; a group for which no start is likely
    to pass has an empty threshold grid, and nothing of it is drawn. Gate "delivered" draws from the whole population
    with a threshold grid over all of it. fit_classes (n,) are the classes of the reviewed labels, which are outside the
    population; reviews is the number of certification labels in all; delta what the test of the sample may spend.
    """
    names = candidates.class_names
    counts = np.bincount(candidates.class_index[candidates.population], minlength=len(names))
    right = np.bincount(fit_classes[~fit.wrong], minlength=len(names))
    wrong = np.bincount(fit_classes[fit.wrong], minlength=len(names))
    members = certified_groups(counts, reviews, guarantee.precision, delta)
    groups = []
    for number, places in enumerate(members):
        inside = candidates.population & np.isin(candidates.class_index, places)
        scores = candidates.scores[inside]
        plain = GroupPlan(
            name=_name(names, places, number, len(members)),
            classes=tuple(names[place] for place in sorted(places.tolist())),
            thresholds=(),
            known_correct=int(right[places].sum()),
            known_wrong=int(wrong[places].sum()),
        )
        if guarantee.gate == "delivered":
            groups.append(plain.model_copy(update={"thresholds": tuple(threshold_grid(scores).tolist())}))
            continue
        chosen = np.isin(fit_classes, places)
        plan = plan_gate_a(
            scores,
            FitLabels(fit.scores[chosen], fit.wrong[chosen], fit.weights[chosen]),
            _part(reviews, inside, candidates.population),
            1 - (1 - guarantee.precision) * (1 - max(reviewers.accepted, guarantee.missed)),
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

    Gate "delivered": a simple random sample of the population. Gate "accepted": one of each group's region, shared
    out by the sizes of the groups. number is that of the declaration of groups; each has a draw of its own.
    """
    return draw_counts(candidates, groups, gate, parts_of(candidates, groups, gate, reviews), seed, number)


def parts_of(candidates: Candidates, groups: Sequence[GroupPlan], gate: Gate, reviews: int) -> list[int]:
    """Share reviews out to the groups, by size; one part for all under gate "delivered", whose draw is one."""
    if gate == "delivered":
        return [reviews]
    return [_part(reviews, candidates.of(group), candidates.population) if group.thresholds else 0 for group in groups]


def draw_counts(
    candidates: Candidates, groups: Sequence[GroupPlan], gate: Gate, counts: Sequence[int], seed: int, number: int
) -> Drawn:
    """As `draw_groups`, with so many labels of each group's region; what there is not cannot be drawn."""

    def draw(among: Bools, count: int, place: int) -> Drawn:
        order = np.arange(len(among)) if candidates.order is None else candidates.order
        drawn = certification_sample(among[order], count, seed, number * _GROUPS + place)
        return Drawn(order[drawn.rows], drawn.inclusion)

    if gate == "delivered":
        return draw(candidates.population, sum(counts), 0)
    drawn = [
        draw(region_of(candidates, group), count, place)
        for place, (group, count) in enumerate(zip(groups, counts, strict=True))
    ]
    # Each group's part of any beginning is what it is of the whole.
    places = np.concatenate([(np.arange(len(one.rows)) + 0.5) / max(len(one.rows), 1) for one in drawn])
    mixed = np.argsort(places, kind="stable")
    rows, inclusion = (np.concatenate([getattr(one, name) for one in drawn]) for name in ("rows", "inclusion"))
    return Drawn(rows[mixed], inclusion[mixed])


def region_of(candidates: Candidates, group: GroupPlan) -> Bools:
    """Mark the labels that a group's sample is drawn from under gate "accepted", (N,)."""
    return candidates.of(group) & (candidates.scores >= (-np.inf if group.region is None else group.region))


def in_order(parts: Sequence[tuple[ReviewPlan, pa.Table]]) -> pa.Table:
    """The certification tasks of some plans in a random order that depends on no answer, each label once.

    A sample that is tested after any answer is asked in the order drawn, block by block. Within a block it is asked by
    class, so there the order is drawn again: as good as any other.
    """
    orders = []
    for plan, tasks in parts:
        rows = tasks.filter(pc.equal(tasks["purpose"], "certify")).sort_by("place")
        mixed = generator(plan.seed, BLOCKS, plan.number).random(rows.num_rows)
        orders.append(rows.take(pa.array(np.lexsort((mixed, np.arange(rows.num_rows) // BLOCK)))))
    return distinct(pa.concat_tables(orders), ["label_id"])


def bets_of(sample: Sample, group: GroupPlan, guarantee: Guarantee, delta: float) -> BetEvidence:
    """The test after any answer of a group, whose sampled labels are in the order in which they were drawn."""
    thresholds = np.array(group.thresholds, np.float64)
    wrong, most = np.array(group.wrong, np.float64), np.full(len(thresholds), group.most_wrong)
    grid = Grid(thresholds, np.array(group.accepted, np.int64), wrong, most)
    if guarantee.gate == "accepted":
        return bet_accepted(sample, grid, guarantee.precision, delta, guarantee.missed)
    population = Population(group.labels, group.known_correct, group.known_wrong)
    return bet_delivered(sample, grid, guarantee.precision, delta, population, guarantee.missed)


def exact_test(
    sample: Sample, thresholds: Floats, guarantee: Guarantee, basis: TestBasis, reviewers: ReviewerError
) -> Evidence:
    """The exact test of a group's sample at thresholds of which the basis knows the sizes.

    reviewers: what honeypots showed; without them guarantee.missed is assumed.
    """
    missed = 0.0 if reviewers.spent else guarantee.missed
    if guarantee.gate == "delivered" and (reviewers.spent or not basis.whole):
        assumed = replace(reviewers, accepted=max(reviewers.accepted, missed), routed=max(reviewers.routed, missed))
        return binomial_gate_b(sample, thresholds, guarantee.precision, basis.delta, assumed)
    if guarantee.gate == "delivered":
        population = Population(basis.labels, basis.known_correct, basis.known_wrong)
        return gate_b(sample, thresholds, guarantee.precision, basis.delta, population, missed)
    sizes = np.array(basis.sizes[: len(thresholds)], np.int64)
    share = np.divide(basis.kept[: len(thresholds)], sizes, out=np.ones(len(sizes)), where=sizes > 0)
    precision = 1 - (1 - guarantee.precision) * share
    return gate_a(sample, thresholds, sizes if basis.whole else None, precision, basis.delta, reviewers, missed)


def reviews_to_start(
    candidates: Candidates, fit: FitLabels, fit_classes: Ints, guarantee: Guarantee, reviews: int, delta: float
) -> int | None:
    """Find about how many reviews give some group a start that is likely to pass, doubling; None: no number does."""
    most = int(candidates.population.sum())
    while reviews < most:
        reviews = min(2 * reviews, most)
        if any(group.thresholds for group in declare_groups(candidates, fit, fit_classes, guarantee, reviews, delta)):
            return reviews
    return None


def _part(reviews: int, inside: Bools, side: Bools) -> int:
    return int(reviews * int(inside.sum()) / max(1, int(side.sum())))


def _name(names: tuple[str, ...], places: Ints, number: int, groups: int) -> str:
    if len(places) == 1:
        return names[int(places[0])]
    return "all classes" if groups == 1 else f"{len(places)} rarer classes" if number == groups - 1 else "several"
