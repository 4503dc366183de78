"""A simulated reviewer answers what `vouch plan-reviews` asks next."""

from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.campaign import Campaign
from schemas.reviews import Planned
from tasks.certify.plan_reviews import Wish, plan_reviews
from tasks.labels.arrays import RunLabels
from tasks.reviews.plans import VERIFY_S, read_plans
from tasks.reviews.verdicts import write_verdicts
from tasks.simulate.reviewer import PERFECT, Errors, answer
from tasks.simulate.truth import RunTruth
from tasks.statistics.bounds import Ints
from tasks.store.open import open_store


@dataclass(frozen=True)
class Reviewed:
    """A review plan that was answered."""

    planned: Planned
    rows: Ints
    """Labels that were asked about; -1 for plants."""
    answers: int
    """Verdicts written."""


def review_next(
    campaign: Campaign, labels: RunLabels, truth: RunTruth, wish: Wish, errors: Errors = PERFECT, seed: int = 0
) -> Reviewed:
    """Plan what is next, and answer all of it from ground truth; the verdicts are marked as simulated.

    Args:
        campaign: Of a labelled run.
        labels: Its labels.
        truth: The right answers about them.
        wish: Budget and stage.
        errors: How often the reviewer errs.
        seed: Seed of his errors.

    Raises:
        UserError: There is nothing to ask.
        StoreError: The workspace cannot be read or written.
    """
    planned = plan_reviews(campaign, wish)
    workspace = open_store(campaign.workspace)
    tasks = next(
        table for plan, table in read_plans(workspace, campaign.run.name) if plan.number == planned.plan.number
    )
    verdicts = answer(tasks, labels, truth, datetime.now(UTC), errors, seed)
    write_verdicts(workspace, verdicts)
    ids = [label for label in tasks["label_id"].to_pylist() if label is not None]
    return Reviewed(planned, labels.places(ids), verdicts.num_rows)


def minutes_of(labels: int) -> float:
    """Budget that asks for so many labels; a hair more than their time, so that none is lost by rounding."""
    return (labels * VERIFY_S + 1e-3) / 60
