"""One whole round of simulated reviews: plan, answer, plan, answer, certify, apply, and hold it against the truth."""

from dataclasses import dataclass
from pathlib import Path

from schemas.campaign import Campaign
from schemas.errors import NotCertifiedError
from schemas.evaluation import ContractTruth
from schemas.policy import Certified
from schemas.records import ApplySummary
from tasks.certify.apply import apply_policy
from tasks.certify.certify import certify_campaign
from tasks.certify.plan_reviews import Wish
from tasks.evaluate.contract import contract_truth
from tasks.labels.arrays import RunLabels, current_of, read_run_labels
from tasks.plan.ledger import Ledger
from tasks.policy import read_policy
from tasks.simulate.review import Reviewed, review_next
from tasks.simulate.truth import RunTruth, truth_of_campaign
from tasks.store.open import open_store


@dataclass(frozen=True)
class Round:
    """What a round came to."""

    reviewed: tuple[Reviewed, Reviewed]
    """The first sample, and the certification sample."""
    certified: Certified | None
    """None where the sample could certify nothing from the start."""
    refusal: str
    """Why, then; else empty."""
    applied: ApplySummary | None
    """None where nothing was certified."""
    contract: ContractTruth | None
    """Against the truth; None where nothing was certified."""
    labels: RunLabels
    """As they are decided now."""
    truth: RunTruth


def review_round(campaign: Campaign, truth_file: Path, wishes: tuple[Wish, Wish], *, export: bool) -> Round:
    """Play a round in the campaign's workspace; its verdicts, and the policy, are marked as simulated.

    Args:
        campaign: Of a labelled run that nothing was asked about yet.
        truth_file: COCO instances.
        wishes: Budgets of the first sample and of the certification sample.
        export: Write the data set by the new policy.

    Raises:
        UserError: The truth fits none of the labels, or there are too few of them.
        StoreError: The workspace cannot be read or written.
    """
    labels, truth = truth_of_campaign(campaign, truth_file)
    first, second = (review_next(campaign, labels, truth, wish) for wish in wishes)
    certified, refusal, applied, contract = None, "", None, None
    try:
        certified = certify_campaign(campaign)
    except NotCertifiedError as error:
        refusal = str(error)
    if certified is not None and certified.version is not None:
        applied = apply_policy(campaign, certified.version, export=export)
        labels = _labels(campaign)
        policy = read_policy(open_store(campaign.workspace), certified.version, campaign.classes)
        contract = contract_truth(labels, truth, policy)
    return Round((first, second), certified, refusal, applied, contract, labels, truth)


def _labels(campaign: Campaign) -> RunLabels:
    workspace, run = open_store(campaign.workspace), campaign.run.name
    with Ledger.load(workspace, run) as ledger:
        return read_run_labels(workspace, run, ledger, current_of(workspace, run))
