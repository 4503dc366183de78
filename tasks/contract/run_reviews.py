"""A run with everything that was asked and answered about it."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.records import Current
from schemas.reviews import ReviewPlan
from tasks.contract.declare import Promise
from tasks.contract.run_labels import RunLabels, current_of, read_run_labels
from tasks.plan.ledger import Ledger
from tasks.reviews.plans import read_plans
from tasks.reviews.resolve import Answers, resolve
from tasks.reviews.verdicts import read_verdicts
from tasks.statistics.bounds import Bools
from tasks.store.open import open_store
from tasks.store.store import Store


@dataclass(frozen=True)
class RunReviews:
    """What planning reviews and certifying look at."""

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
    def promise(self) -> Promise:
        """What the campaign asks for."""
        routing = self.campaign.routing
        return Promise(routing.precision, routing.confidence, routing.gate)

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
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
    if not labels.count:
        raise UserError(f"run {run!r} has no labels, so there is nothing to review or certify; see `vouch status`")
    verdicts = read_verdicts(workspace)
    return RunReviews(campaign, workspace, current, labels, read_plans(workspace, run), verdicts, resolve(verdicts))
