"""How a campaign's policy and its reviews stand, told without reading more of a label than its decision."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.policy import Policy
from schemas.records import Current, PolicyStatus, ReviewStatus
from schemas.reviews import TASKS, ReviewPlan
from tasks.contract.applicable import newest_certified
from tasks.contract.audits import expired
from tasks.contract.choose import look_up_policy
from tasks.contract.looks import Look, read_looks
from tasks.reviews.decisions import Decisions
from tasks.reviews.distinct import distinct
from tasks.reviews.open_tasks import open_tasks
from tasks.reviews.plans import read_plans
from tasks.reviews.resolve import Answers, missed_and_checked, resolve
from tasks.reviews.verdicts import read_verdicts
from tasks.route.policy import changed_inputs, check_fits, lesser_promise
from tasks.route.spoken import accepts, basis
from tasks.store.store import Store


@dataclass(frozen=True)
class Standing:
    """What is known of a campaign's policy and reviews."""

    policy: PolicyStatus
    reviews: ReviewStatus
    plans: list[tuple[ReviewPlan, pa.Table]]
    """Those about the labels as they are."""
    open: dict[int, pa.Table]
    """Number of each of these plans -> its tasks that wait."""
    answers: Answers
    looks: list[Look]


def read_standing(campaign: Campaign, workspace: Store, current: Current | None) -> Standing:
    """Read policies, plans, verdicts and looks.

    Args:
        campaign: Whose.
        workspace: The workspace.
        current: The settings under which the labels came about; None before the first run.

    Raises:
        StoreError: One of them is damaged.
    """
    run = campaign.run.name
    every, verdicts = read_plans(workspace, run), read_verdicts(workspace)
    answers, images = resolve(verdicts), missed_and_checked(verdicts)
    plans = [(plan, tasks) for plan, tasks in every if current is not None and plan.inputs == current.inputs]
    accepts = Decisions(workspace, run).accepts
    waiting = {plan.number: open_tasks(tasks, answers, images, accepts) for plan, tasks in plans}
    once = distinct(pa.concat_tables([TASKS.empty_table(), *waiting.values()]), ["label_id", "key", "class_name"])
    reviews = ReviewStatus(
        plans=len(every),
        open=once.num_rows,
        open_of={number: tasks.num_rows for number, tasks in waiting.items() if tasks.num_rows},
        verdicts=verdicts.num_rows,
        simulated=int(pc.sum(verdicts["simulated"]).as_py() or 0),
    )
    policy = _policy(campaign, workspace, current)
    newest = None if current is None else newest_certified(campaign, workspace, current)
    if current and newest and _waits(newest, policy, campaign, current) and not expired(newest, every, answers):
        policy = policy.model_copy(update={"waiting": newest.version})
    return Standing(policy, reviews, plans, waiting, answers, read_looks(workspace, run))


def _policy(campaign: Campaign, workspace: Store, current: Current | None) -> PolicyStatus:
    try:
        chosen = look_up_policy(campaign, workspace)
        # Labels of an earlier version of Vouch do not say what they depend on.
        if current is not None and current.inputs:
            check_fits(chosen.policy, current.inputs)
    except UserError as error:
        return PolicyStatus(version=None, basis="", certified=False, simulated=False, problem=str(error))
    policy, promise = chosen.policy, chosen.policy.certification
    simulated = promise is not None and promise.simulated
    found = PolicyStatus(
        version=policy.version,
        basis=basis(policy),
        certified=promise is not None and not simulated and not chosen.expired and accepts(policy),
        simulated=simulated,
        expired=chosen.expired,
    )
    if promise is None:
        return found
    terms = {"precision": promise.precision, "confidence": promise.confidence, "gate": promise.gate}
    return found.model_copy(update=terms | {"created": promise.created})


def _waits(newest: Policy, policy: PolicyStatus, campaign: Campaign, current: Current) -> bool:
    """Whether a certified policy fits, and was made after the one in force, if that is certified itself."""
    promise = newest.certification
    if promise is None or campaign.routing.policy is not None or newest.version == policy.version:
        return False
    if changed_inputs(promise.inputs, current.inputs) or lesser_promise(newest, campaign.routing):
        return False
    return policy.created is None or bool(policy.expired) or promise.created > policy.created
