"""Rounds of certification: groups declared once, and the draws that certify them, one after the other."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.reviews import ReviewPlan
from tasks.columns import numbers
from tasks.contract.declare import Candidates, draw_counts
from tasks.contract.kept_calibrators import KeptCalibrator, read_calibrator
from tasks.contract.run_reviews import RunReviews
from tasks.reviews.distinct import distinct
from tasks.reviews.plans import Plans
from tasks.reviews.resolve import NO_ANSWER, Answers
from tasks.statistics.bounds import Floats


@dataclass(frozen=True)
class Round:
    """All certification tasks of one declaration of groups."""

    plans: tuple[ReviewPlan, ...]
    """Ascending; all with the same groups, calibrator, gate and split."""
    tasks: pa.Table
    """Rows of schemas.reviews.TASKS: certification tasks, then known-wrong plants."""

    @property
    def plan(self) -> ReviewPlan:
        """The last plan."""
        return self.plans[-1]

    @property
    def number(self) -> int:
        """1 for the first round of a run."""
        return self.plan.round

    @property
    def certify(self) -> pa.Table:
        """Certification tasks."""
        return self.tasks.filter(pc.equal(self.tasks["purpose"], "certify"))

    @property
    def plants(self) -> pa.Table:
        """Known-wrong plants."""
        return self.tasks.filter(pc.equal(self.tasks["purpose"], "plant"))

    def unanswered(self, answers: Answers) -> int:
        """Tasks without an answer; nobody can tell a plant from the others, so plants count."""
        return int((answers.wrong_of(self.tasks["label_id"]) == NO_ANSWER).sum())

    def counts(self) -> list[int]:
        """Labels drawn so far, as `draw_counts` takes them."""
        names = self.certify["class_name"].to_pylist()
        if self.plan.gate == "delivered":
            return [len(names)]
        return [sum(name in group.classes for name in names) for group in self.plan.groups]


def last_round(plans: Plans) -> Round | None:
    """Gather the last round of a run; None before any certification task was drawn.

    Planners at work at the same time may have drawn a label twice, or declared a round twice: a label counts once, and
    the declaration of the last plan holds.
    """
    number = max((plan.round for plan, _ in plans), default=0)
    if not number:
        return None
    of_number = [(plan, tasks) for plan, tasks in plans if plan.round == number]
    last = of_number[-1][0]
    chosen = [(plan, tasks) for plan, tasks in of_number if _declared(plan) == _declared(last)]
    tables = [tasks.filter(pc.is_in(tasks["purpose"], pa.array(["certify", "plant"]))) for _, tasks in chosen]
    return Round(tuple(plan for plan, _ in chosen), distinct(pa.concat_tables(tables), ["label_id"]))


def _declared(plan: ReviewPlan) -> tuple[object, ...]:
    return plan.inputs, plan.gate, plan.seed, plan.fit_share, plan.calibrator, plan.groups


@dataclass(frozen=True)
class RoundLabels:
    """A run's labels as a round sees them."""

    candidates: Candidates
    kept: KeptCalibrator
    whole: bool
    """Whether the certify side is the one that was drawn from: no label has come or gone since."""


def labels_of_round(reviews: RunReviews, found: Round) -> RoundLabels:
    """Score all labels by the round's calibrator, and draw again to see whether they are the ones drawn from.

    Raises:
        StoreError: The calibrator is missing or damaged.
    """
    plan, labels = found.plan, reviews.labels
    assert plan.calibrator is not None
    calibrator, kept = read_calibrator(reviews.workspace, reviews.run, plan.calibrator)
    scores = calibrator.probabilities(labels.signals, labels.class_index, labels.class_names)
    candidates = candidates_of(reviews, scores)
    again = draw_counts(candidates, plan.groups, plan.gate, found.counts(), plan.seed, plan.round)
    places = labels.places(found.certify["label_id"].to_pylist())
    # The beginning of a random order may be the same with a few labels more; the probabilities tell.
    stored = np.unique(numbers(found.certify["inclusion"], np.float64))
    whole = np.array_equal(np.sort(places), np.sort(again.rows)) and np.isin(again.inclusion, stored).all()
    return RoundLabels(candidates, kept, bool(whole))


def candidates_of(reviews: RunReviews, scores: Floats) -> Candidates:
    """All labels of a run with these scores."""
    labels = reviews.labels
    return Candidates(scores, labels.class_index, labels.class_names, ~reviews.fit_side())
