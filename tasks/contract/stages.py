"""Says which stage of reviewing comes next, and what must come before it."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ObjectMissingError, UserError
from schemas.policy import Policy
from schemas.reviews import Stage
from tasks.contract.audits import contradicted, expired
from tasks.contract.fit import fit_verdicts
from tasks.contract.looks import read_looks
from tasks.contract.rounds import Round, labels_of_round, last_round
from tasks.contract.run_reviews import RunReviews
from tasks.reviews.resolve import NO_ANSWER
from tasks.route.policy import FOLDER, changed_inputs, policy_key
from tasks.statistics.fit_calibrator import FEWEST_LABELS


def next_stage(reviews: RunReviews, fresh: bool = False) -> Stage:
    """Decide what to draw next.

    Fit labels first; then a certification sample, or another one where the labels, the gate or what the calibrator was
    fitted to have changed, or audits have ended the policy that it certified; more of it after a look that certified
    nothing; audits and doubtful labels once a certified policy is in force.

    Raises:
        UserError: Earlier tasks come first, or another command does.
    """
    share = reviews.fit_share
    if share is None:
        return "first"
    verdicts = len(fit_verdicts(reviews.labels, reviews.answers, share, reviews.seed)[0])
    if waiting := _waiting(reviews, "fit"):
        raise UserError(
            f"{waiting:,} labels to fit to still wait for an answer; answer them first, or go on with those answered: "
            "--stage certify"
        )
    if verdicts < FEWEST_LABELS:
        return "first"
    last = last_round(reviews.plans)
    if fresh or last is None:
        return "certify"
    policy = policy_of_run(reviews)
    holds = policy is not None and policy.certification is not None and not _has_ended(reviews, policy)
    if holds and reviews.labels.accepted.any():
        return "queue"
    if not continues(reviews, last):
        return "certify"
    looked = [look for look in read_looks(reviews.workspace, reviews.run) if last.plan.number in look.plans]
    if not looked:
        raise UserError(
            "the certification sample is answered: use `vouch certify` (or --stage certify to draw more of it, which "
            "is a look at the answers as well, and spends as much of the confidence)"
        )
    if certified := [policy for policy in _policies_of(reviews, last) if _is_asked_for(reviews, last, policy)]:
        raise UserError(
            f"policy {certified[-1].version} is certified and not in force: use `vouch apply` (or --stage certify to "
            "review on, for a policy that may accept more)"
        )
    return "certify"


def continues(reviews: RunReviews, last: Round) -> bool:
    """Whether the next certification labels belong to the round that is there.

    They do not where the labels are others now, the gate is, more was reviewed to fit, or audits contradict what the
    round has certified.

    Raises:
        UserError: Its tasks still wait for an answer.
    """
    plan = last.plan
    if changed_inputs(plan.inputs, reviews.current.inputs) or plan.gate != reviews.promise.gate:
        return False
    if waiting := last.unanswered(reviews.answers):
        raise UserError(
            f"{waiting:,} certification tasks still wait for an answer; answer them first, or draw anew: "
            "--stage certify --fresh"
        )
    fitted_since = any(plan.number > last.plans[0].number and plan.counts.get("fit") for plan, _ in reviews.plans)
    if fitted_since or any(
        contradicted(policy, reviews.plans, reviews.answers) for policy in _policies_of(reviews, last)
    ):
        return False
    return labels_of_round(reviews, last).whole


def policy_of_run(reviews: RunReviews) -> Policy | None:
    """The policy that the labels were routed by; None where it is not kept."""
    try:
        return Policy.model_validate_json(reviews.workspace.get(policy_key(reviews.current.policy)).data)
    except ObjectMissingError:
        return None


def _has_ended(reviews: RunReviews, policy: Policy) -> bool:
    return expired(policy, reviews.plans, reviews.answers) is not None


def _policies_of(reviews: RunReviews, last: Round) -> list[Policy]:
    """The policies that rest on a round or its beginning."""
    numbers = {plan.number for plan in last.plans}
    found = []
    for info in reviews.workspace.list(f"{FOLDER}/certified-"):
        policy = Policy.model_validate_json(reviews.workspace.get(info.key).data)
        promise = policy.certification
        if promise and promise.inputs == reviews.current.inputs and set(promise.plans) <= numbers:
            found.append(policy)
    return found


def _is_asked_for(reviews: RunReviews, last: Round, policy: Policy) -> bool:
    """Whether a policy rests on the whole round and promises what the campaign asks for."""
    found, asked = policy.certification, reviews.promise
    if found is None or len(found.plans) < len(last.plans):
        return False
    return (found.precision, found.confidence, found.gate) == (asked.precision, asked.confidence, asked.gate)


def _waiting(reviews: RunReviews, purpose: str) -> int:
    """Tasks of a purpose without an answer, about labels that the run still has."""
    waiting = 0
    for plan, tasks in reviews.plans:
        if plan.inputs == reviews.current.inputs:
            ids = tasks.filter(pc.equal(tasks["purpose"], pa.scalar(purpose)))["label_id"]
            there = reviews.labels.places(ids.to_pylist()) >= 0
            waiting += int((there & (reviews.answers.wrong_of(ids) == NO_ANSWER)).sum())
    return waiting
