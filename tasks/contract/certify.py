"""Certifies a run: from the verdicts on its certification sample to a policy, or to the reasons why there is none."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow.compute as pc

from schemas.campaign.campaign import Campaign
from schemas.certified import Certified
from schemas.errors import NotCertifiedError, UserError
from schemas.policy import Policy, Reviewers
from schemas.reviews import PLANTED_ROUTED
from tasks.certify.groups import delta_of_look
from tasks.certify.reviewers import TRUSTED, ReviewerError, reviewer_error
from tasks.columns import numbers
from tasks.contract.audits import expired
from tasks.contract.certified_policy import Basis, make_policy, not_sampled, policy_groups
from tasks.contract.class_estimates import class_estimates
from tasks.contract.costs import minutes_for
from tasks.contract.declare import Promise
from tasks.contract.judge import Judged, Reviewed, judge
from tasks.contract.looks import Look, number_of_look, take_look
from tasks.contract.rounds import Round, RoundLabels, labels_of_round, last_round
from tasks.contract.run_reviews import RunReviews, read_run_reviews
from tasks.fingerprint import fingerprint
from tasks.reviews.resolve import CORRECT, NO_ANSWER
from tasks.route.policy import changed_inputs

_PLAN: Final = "use `vouch plan-reviews`"
_FRESH: Final = "draw anew: vouch plan-reviews CAMPAIGN --stage certify --fresh"


def certify_campaign(campaign: Campaign, unanswered_as_wrong: bool = False) -> Certified:
    """Certify by the last round of certification tasks, and write the policy if anything is certified.

    Only verdicts on certification tasks count. Each result is a look, written down before it is known; certifying again
    with nothing new is the same look with the same result. Asking for another precision of the same labels is allowed,
    as another look: the ladder does not depend on it.

    Args:
        campaign: The campaign.
        unanswered_as_wrong: Count certification tasks without an answer as wrong, and plants as missed.

    Raises:
        UserError: There is nothing to certify by, and the message says what to do first.
        StoreError: A table, plan or file of verdicts is damaged.
    """
    reviews = read_run_reviews(campaign)
    found = _round_to_certify(reviews, unanswered_as_wrong)
    simulated = _simulated(reviews, found)
    of_round = labels_of_round(reviews, found)
    reviewed = _reviewed(reviews, found)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    look = _look(reviews, found, of_round, unanswered_as_wrong, now)
    _refuse_hopeless(reviews, found, of_round, reviewed, number_of_look(reviews.workspace, reviews.run, look))
    look = take_look(reviews.workspace, reviews.run, look)
    delta = delta_of_look(1 - reviews.promise.confidence, look.look)
    reviewers, bounds = _reviewers(reviews, found, delta)
    judged = _judged(reviews, found, of_round, reviewed, delta, bounds)
    groups = policy_groups(judged)
    basis = Basis(reviews, found, of_round, look, reviewers, simulated, _verdicts(reviews, found))
    policy = make_policy(basis, judged, look.created) if any(group.p_correct is not None for group in groups) else None
    return Certified(
        run=reviews.run,
        workspace=reviews.workspace.uri,
        version=None if policy is None else policy.version,
        precision=reviews.promise.precision,
        confidence=reviews.promise.confidence,
        gate=reviews.promise.gate,
        look=look.look,
        delta=delta,
        groups=groups,
        not_sampled=not_sampled(judged),
        classes=class_estimates(judged, reviewed, of_round.candidates),
        labels=reviews.labels.count,
        kept_for_fitting=int(reviews.fit_side().sum()),
        accepted=sum(one.accepted for one in judged),
        reviewers=reviewers,
        simulated=simulated,
        more_reviews=_more_reviews(judged) if policy is None else None,
        remarks=(
            *_remarks(reviews, found, of_round, policy),
            *_imprecise(judged, reviews.promise),
            "another look, at other verdicts or for another precision, would be tested at "
            f"{delta_of_look(1 - reviews.promise.confidence, look.look + 1):.4g}",
        ),
    )


def _judged(
    reviews: RunReviews,
    found: Round,
    of_round: RoundLabels,
    reviewed: Reviewed,
    delta: float,
    bounds: ReviewerError,
) -> list[Judged]:
    candidates, groups = of_round.candidates, found.plan.groups
    return judge(reviewed, groups, candidates, reviews.promise, delta, bounds, whole=of_round.whole)


def _refuse_hopeless(reviews: RunReviews, found: Round, of_round: RoundLabels, reviewed: Reviewed, number: int) -> None:
    """Refuse a sample that could certify nothing if every answer were "correct", before it spends a look.

    That is known without a look at the verdicts on the sample, so nothing is given away by it.
    """
    delta = delta_of_look(1 - reviews.promise.confidence, number)
    bounds = _reviewers(reviews, found, delta)[1]
    perfect = replace(reviewed, wrong=np.zeros(len(reviewed.wrong), np.bool_))
    judged = _judged(reviews, found, of_round, perfect, delta, bounds)
    if any(one.certificate.threshold is not None for one in judged):
        return
    reasons = dict.fromkeys(one.certificate.refusal for one in judged if one.drawn)
    more = _more_reviews(judged)
    if more is None and found.plants.num_rows:
        reasons["vouch plan-reviews CAMPAIGN --stage certify --plants N adds some"] = None
    way = "" if more is None else f"; vouch plan-reviews CAMPAIGN --stage certify --minutes {minutes_for(more)}"
    raise NotCertifiedError(
        f"this sample could certify nothing even if all of it were correct ({'; '.join(reasons)}), so no look was "
        f"spent on it{way}"
    )


def _imprecise(judged: list[Judged], promise: Promise) -> list[str]:
    """Say where the accepted labels seem worse than what is promised of all that is delivered."""
    return [
        f"{one.plan.name}: precision A, of the accepted labels alone, is about {one.precisions.accepted:.3f}, below "
        f"{promise.precision:.4g}: the promise holds only together with the labels that people keep; "
        "routing.gate: accepted promises it of the accepted ones alone"
        for one in judged
        if one.certificate.threshold is not None and one.precisions.accepted < promise.precision
    ]


def _round_to_certify(reviews: RunReviews, unanswered_as_wrong: bool) -> Round:
    """The last round, if it can be certified by."""
    if not reviews.verdicts.num_rows:
        raise UserError(f"there are no verdicts in {reviews.workspace.uri}; {_PLAN}, and answer what it asks")
    found = last_round(reviews.plans)
    if found is None:
        known = int((reviews.labels.places(reviews.answers.label_ids) >= 0).sum())
        raise UserError(
            f"no certification sample was drawn: the verdicts on {known:,} labels of this run serve to fit; {_PLAN}"
        )
    plan, promise = found.plan, reviews.promise
    if changed := changed_inputs(plan.inputs, reviews.current.inputs):
        raise UserError(
            f"changed since review plan {plan.number} was drawn: {', '.join(changed)}; its answers are about other "
            f"labels; {_PLAN} to draw anew"
        )
    if plan.gate != promise.gate:
        raise UserError(
            f"review plan {plan.number} was drawn for gate {plan.gate}, routing.gate is {promise.gate}; set it back, "
            f"or {_FRESH}"
        )
    missing = found.unanswered(reviews.answers)
    if missing == found.tasks.num_rows:
        numbers = ", ".join(str(plan.number) for plan in found.plans)
        raise UserError(
            f"none of the {missing:,} certification tasks of review plan {numbers} is answered; answer them and import "
            "the verdicts: vouch verdicts CAMPAIGN FILE"
        )
    if missing and not unanswered_as_wrong:
        raise UserError(
            f"{missing:,} of {found.tasks.num_rows:,} certification tasks have no answer; a part of a sample certifies "
            f"nothing: answer them (vouch verdicts CAMPAIGN --tasks FILE --plan {found.plans[-1].number} writes them), "
            "or count them as wrong with --unanswered-as-wrong"
        )
    return found


def _simulated(reviews: RunReviews, found: Round) -> bool:
    ids = found.tasks["label_id"]
    answered = reviews.answers.wrong_of(ids) != NO_ANSWER
    simulated = reviews.answers.simulated_of(ids)[answered]
    if simulated.any() and not simulated.all():
        raise UserError(
            f"a simulated reviewer answered {int(simulated.sum()):,} of {len(simulated):,} certification tasks, people "
            f"the others; certify by either alone: {_FRESH}"
        )
    return bool(simulated.any())


def _verdicts(reviews: RunReviews, found: Round) -> str:
    """Fingerprint of the resolved verdicts of a round."""
    ids = found.tasks["label_id"].to_pylist()
    codes = reviews.answers.wrong_of(found.tasks["label_id"]).tolist()
    return fingerprint(sorted([label, code] for label, code in zip(ids, codes, strict=True)))


def _look(reviews: RunReviews, found: Round, of_round: RoundLabels, unanswered_as_wrong: bool, now: str) -> Look:
    promise, numbers = reviews.promise, tuple(plan.number for plan in found.plans)
    # Answers that are all there need no such rule, so it makes no other look of them.
    rule = unanswered_as_wrong and found.unanswered(reviews.answers) > 0
    # Gate "delivered" needs no sizes, so labels that come or go do not change its tests.
    whole = of_round.whole or promise.gate == "delivered"
    return Look(
        number=1,
        look=1,
        key=fingerprint(
            reviews.current.inputs,
            numbers,
            _verdicts(reviews, found),
            found.plan.calibrator,
            [promise.precision, promise.confidence, promise.gate],
            [rule, whole],
        ),
        inputs=reviews.current.inputs,
        plans=numbers,
        precision=promise.precision,
        confidence=promise.confidence,
        created=now,
    )


def _reviewed(reviews: RunReviews, found: Round) -> Reviewed:
    """The certification sample: disputed labels and those without an answer are wrong."""
    tasks = found.certify
    scores = numbers(tasks["p_correct"], np.float64)
    wrong = reviews.answers.wrong_of(tasks["label_id"]) != CORRECT
    return Reviewed(scores, wrong, tuple(tasks["class_name"].to_pylist()))


def _reviewers(reviews: RunReviews, found: Round, delta: float) -> tuple[Reviewers, ReviewerError]:
    """Bound what reviewers miss, by the plants of the round; one without an answer counts as missed."""
    counts = []
    plants = found.plants
    routed = pc.equal(plants["stratum"], PLANTED_ROUTED)
    for chosen in (pc.invert(routed), routed):
        codes = reviews.answers.wrong_of(plants.filter(chosen)["label_id"])
        counts.append((len(codes), int(((codes == CORRECT) | (codes == NO_ANSWER)).sum())))
    (planted, missed), (planted_routed, missed_routed) = counts
    if not planted + planted_routed:
        return Reviewers(), TRUSTED
    bounds = reviewer_error(planted, missed, delta, planted_routed, missed_routed)
    found_reviewers = Reviewers(
        planted=planted + planted_routed,
        missed=missed + missed_routed,
        accepted=bounds.accepted,
        routed=bounds.routed,
        spent=bounds.spent,
    )
    return found_reviewers, bounds


def _more_reviews(judged: list[Judged]) -> int | None:
    """Fewest more reviews that would certify some group, if any number would."""
    known = [
        # A draw spreads over all groups, so a group gets its part of it alone.
        int(np.ceil(one.certificate.more_reviews * sum(each.drawn for each in judged) / one.drawn))
        for one in judged
        if one.certificate.more_reviews is not None and one.drawn
    ]
    return min(known, default=None)


def _remarks(reviews: RunReviews, found: Round, of_round: RoundLabels, policy: Policy | None) -> list[str]:
    said = []
    if not of_round.whole:
        said.append(
            "labels have come or gone since the certification sample was drawn; the promise is about those it was "
            "drawn from"
        )
    if of_round.kept.brier >= of_round.kept.brier_of_rate:
        said.append(
            f"the signals tell right from wrong no better than guessing (Brier {of_round.kept.brier:.4f}, of the "
            f"constant share {of_round.kept.brier_of_rate:.4f}); more reviews for fitting may help: "
            "vouch plan-reviews CAMPAIGN --stage first"
        )
    if (missing := found.unanswered(reviews.answers)) > 0:
        said.append(f"{missing:,} certification tasks without an answer were counted as wrong")
    if policy is not None and (ended := expired(policy, reviews.plans, reviews.answers)):
        said.append(f"{ended}; to draw a new sample: vouch plan-reviews CAMPAIGN")
    if policy is not None and not found.plants.num_rows:
        said.append("reviewers were taken at their word: no known-wrong labels were planted (plan-reviews --plants N)")
    return said
