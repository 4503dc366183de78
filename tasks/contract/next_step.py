"""Says in words what comes next in a campaign."""

from typing import Final

from schemas.campaign import Campaign
from schemas.records import Current
from tasks.collect.totals import Totals
from tasks.contract.rounds import Round, last_round
from tasks.contract.standing import Standing

_PLAN: Final = "vouch plan-reviews CAMPAIGN"


def next_step(
    campaign: Campaign, standing: Standing, totals: Totals, current: Current | None, *, running: bool = False
) -> str:
    """Say what to do next, and why.

    `vouch plan-reviews` decides by the labels themselves; this goes by the records alone, and so by less: it cannot see
    labels that have come or gone since a sample was drawn.

    Args:
        campaign: The campaign.
        standing: Its policy and reviews.
        totals: How far the run is.
        current: The settings under which the labels came about; None before the first run.
        running: Whether a process works on the run now.

    Returns:
        One or two sentences, in which CAMPAIGN stands for the campaign file.
    """
    if running:
        return "the run goes on; look again when it has ended"
    if current is None or totals.pending or not totals.shards:
        return f"label the {totals.pending:,} images that are pending: vouch run CAMPAIGN" if current else _FIRST_RUN
    policy = standing.policy
    if policy.problem:
        return f"the policy cannot be used: {policy.problem}"
    if not totals.labels:
        return "no label was found, so there is nothing to review; try other prompts, and vouch run CAMPAIGN again"
    if policy.waiting:
        return f"put the certified policy {policy.waiting} in force: vouch apply CAMPAIGN"
    if policy.version != current.policy and not policy.expired:
        return f"decide the labels by policy {policy.version}, which is in force: vouch run CAMPAIGN"
    return _of_reviews(campaign, standing)


_FIRST_RUN: Final = "label the images: vouch run CAMPAIGN"


def _of_reviews(campaign: Campaign, standing: Standing) -> str:
    policy = standing.policy
    if fit := _waiting_to_fit(standing):
        return _answer(standing, fit, "for the calibrator is fitted to them")
    if policy.precision is not None and not policy.expired:
        if standing.reviews.open:
            return _answer(
                standing, set(standing.reviews.open_of), "which show whether the promise holds and mend the data set"
            )
        return f"ask for a blind audit and doubtful labels: {_PLAN}; vouch report CAMPAIGN shows how the run stands"
    last = last_round(standing.plans)
    if last is not None and _goes_on(campaign, standing, last):
        if last.unanswered(standing.answers):
            numbers = {plan.number for plan in last.plans if standing.reviews.open_of.get(plan.number)}
            return _answer(standing, numbers, "for a part of a sample certifies nothing")
        if not _was_looked_at(campaign, standing, last):
            return "the certification sample is answered: vouch certify CAMPAIGN"
        if not policy.expired:
            return f"the certification sample was too small or too often wrong; draw more of it: {_PLAN}"
    if policy.expired:
        return f"the promise of the policy has ended: {policy.expired} ({_PLAN} draws what that takes)"
    if any(plan.counts.get("fit") for plan, _ in standing.plans):
        return f"draw labels that certify a precision of {campaign.routing.precision:g}: {_PLAN}"
    return f"to have a precision of {campaign.routing.precision:g} certified, draw what people look at first: {_PLAN}"


def _waiting_to_fit(standing: Standing) -> set[int]:
    """Plans with labels to fit to that nobody has answered."""
    return {number for number, tasks in standing.open.items() if "fit" in tasks["purpose"].to_pylist()}


def _goes_on(campaign: Campaign, standing: Standing, last: Round) -> bool:
    """Whether a round still serves: drawn for the gate that is asked for, with all that was reviewed to fit."""
    fitted_since = any(plan.number > last.plans[0].number and plan.counts.get("fit") for plan, _ in standing.plans)
    return last.plan.gate == campaign.routing.gate and not fitted_since


def _was_looked_at(campaign: Campaign, standing: Standing, last: Round) -> bool:
    asked = (campaign.routing.precision, campaign.routing.confidence)
    return any(last.plan.number in look.plans and (look.precision, look.confidence) == asked for look in standing.looks)


def _answer(standing: Standing, numbers: set[int], why: str) -> str:
    """Ask for the answers to the tasks of some plans, those of the last plan first."""
    number = max(numbers)
    last = max(plan.number for plan, _ in standing.plans)
    which = "" if number == last else f" --plan {number}"
    return (
        f"have the {standing.reviews.open_of[number]:,} open tasks of review plan {number} answered, {why}: "
        f"vouch verdicts CAMPAIGN --tasks FILE{which} hands them out, vouch verdicts CAMPAIGN FILE takes the answers"
    )
