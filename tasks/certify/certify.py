"""Certifies a run: from the verdicts on its validation sample to a policy, or to the reasons why there is none.

The precision of each class's accepted labels is estimated for reading beside the certificates; no guarantee is given
by it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import NotCertifiedError, ObjectMissingError, UserError
from vouch_labels.schemas.policy import (
    Certification,
    Certified,
    ClassEstimate,
    Group,
    GroupCertificate,
    Policy,
)
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.certify.active import active_version
from vouch_labels.tasks.certify.data import Candidates, Guarantee, RunReviews, read_run_reviews
from vouch_labels.tasks.certify.judge import (
    Judged,
    Reviewed,
    RoundResult,
    describe_test,
    judge_round,
    verdicts_of,
)
from vouch_labels.tasks.certify.monitor import expired, reference
from vouch_labels.tasks.certify.rounds import (
    CertificationTest,
    Round,
    RoundLabels,
    labels_of_round,
    last_round,
    number_of_test,
    record_test,
)
from vouch_labels.tasks.policy import changed_inputs, content_name, policy_key, write_policy
from vouch_labels.tasks.reviews.plans import minutes_for
from vouch_labels.tasks.reviews.resolve import NO_ANSWER
from vouch_labels.tasks.statistics.bounds import shrunken_shares
from vouch_labels.tasks.statistics.threshold_tests import delta_of_test

_PLAN: Final = "use `vouch plan-reviews`"
_FRESH: Final = "draw again: vouch plan-reviews CAMPAIGN --stage certify --fresh"


def certify_campaign(campaign: Campaign, unanswered_as_wrong: bool = False) -> Certified:
    """Certify by the last round of certification tasks, and write the policy if anything is certified.

    Only verdicts on certification tasks count. Each result is a test, written down before it is known; certifying again
    with nothing new is the same test with the same result. Drawing more labels, or again, after answers is a test as
    well (`drawing_as_test`). Asking for another precision of the same labels is allowed, as another test: the threshold
    grid does not depend on it. unanswered_as_wrong counts tasks without an answer as wrong, honeypots as missed.

    Raises:
        UserError: There is nothing to certify by, and the message says what to do first.
        NotCertifiedError: The sample could certify nothing if all of it were correct; no test is taken.
        StoreError: A table, plan or file of verdicts is damaged.
    """
    reviews = read_run_reviews(campaign)
    found = _round_to_certify(reviews, unanswered_as_wrong)
    simulated = _simulated(reviews, found)
    of_round = labels_of_round(reviews, found)
    test = describe_test(reviews, found, of_round, unanswered_as_wrong=unanswered_as_wrong)
    number = number_of_test(reviews.workspace, reviews.run, test)
    if not judge_round(reviews, found, of_round, number, if_correct=True).certifies:
        # To draw more of it is a test, so what is drawn then must do for the next.
        raise _insufficient(judge_round(reviews, found, of_round, number + 1, if_correct=True), found)
    test = record_test(reviews.workspace, reviews.run, test)
    tested = judge_round(reviews, found, of_round, test.look)
    judged = tested.judged
    policy = make_policy(reviews, found, of_round, test, tested, simulated=simulated) if tested.certifies else None
    return Certified(
        run=reviews.run,
        workspace=reviews.workspace.uri,
        version=None if policy is None else policy.version,
        in_force=policy is not None
        and policy.version == (campaign.routing.policy or active_version(reviews.workspace, reviews.run)),
        precision=reviews.guarantee.precision,
        confidence=reviews.guarantee.confidence,
        gate=reviews.guarantee.gate,
        look=test.look,
        delta=tested.delta,
        groups=policy_groups(judged),
        not_sampled=not_sampled(judged),
        classes=class_estimates(judged, tested.reviewed, of_round.candidates),
        labels=reviews.labels.count,
        kept_for_fitting=int(reviews.fit_side().sum()),
        accepted=sum(one.accepted for one in judged),
        reviewers=tested.reviewers,
        simulated=simulated,
        more_reviews=_more_reviews(judged) if policy is None else None,
        remarks=(
            *_remarks(reviews, found, of_round, policy),
            *_imprecise(judged, reviews.guarantee),
            "another test, at other verdicts or for another precision, would be tested at "
            f"{delta_of_test(1 - reviews.guarantee.confidence, test.look + 1):.4g}",
        ),
    )


def _insufficient(tested: RoundResult, found: Round) -> NotCertifiedError:
    """Say why a sample could certify nothing if all of it were correct, and what to do."""
    reasons = dict.fromkeys(one.certificate.refusal for one in tested.judged if one.drawn)
    more = _more_reviews(tested.judged)
    if more is None and found.honeypots.num_rows:
        reasons["vouch plan-reviews CAMPAIGN --stage certify --honeypots N adds some"] = None
    ways = "drawing more is one: vouch plan-reviews CAMPAIGN --stage certify --minutes"
    return NotCertifiedError(
        f"this sample could certify nothing even if all of it were correct ({'; '.join(reasons)}), so no test was "
        f"spent on it{'' if more is None else f'; {ways} {minutes_for(more)}'}"
    )


def _more_reviews(judged: list[Judged]) -> int | None:
    """Fewest more reviews that would certify some group, if any number would."""
    known = [
        # A draw spreads over all groups, so a group gets its part of it alone.
        int(np.ceil(one.certificate.more_reviews * sum(each.drawn for each in judged) / one.drawn))
        for one in judged
        if one.certificate.more_reviews is not None and one.drawn
    ]
    return min(known, default=None)


def _imprecise(judged: list[Judged], guarantee: Guarantee) -> list[str]:
    """Say where the accepted labels seem worse than what is guaranteed of all that is delivered."""
    return [
        f"{one.plan.name}: precision A, of the accepted labels alone, is about {one.precisions.accepted:.3f}, below "
        f"{guarantee.precision:.4g}: the guarantee holds only together with the labels that people keep; "
        "routing.gate: accepted guarantees it of the accepted ones alone"
        for one in judged
        if one.certificate.threshold is not None and one.precisions.accepted < guarantee.precision
    ]


def _round_to_certify(reviews: RunReviews, unanswered_as_wrong: bool) -> Round:
    """The last round, if it can be certified by."""
    if not reviews.verdicts.num_rows:
        raise UserError(f"there are no verdicts in {reviews.workspace.uri}; {_PLAN}, and answer what it asks")
    found = last_round(reviews.plans)
    if found is None:
        known = int((reviews.labels.places(reviews.answers.label_ids) >= 0).sum())
        raise UserError(
            f"no certification sample was drawn: the verdicts on {plural(known, 'label')} of this run serve to fit; "
            f"{_PLAN}"
        )
    plan, guarantee = found.plan, reviews.guarantee
    if changed := changed_inputs(plan.inputs, reviews.current.inputs):
        raise UserError(
            f"changed since review plan {plan.number} was drawn: {', '.join(changed)}; its answers are about other "
            f"labels; {_PLAN} to draw again"
        )
    if plan.gate != guarantee.gate:
        raise UserError(
            f"review plan {plan.number} was drawn for gate {plan.gate}, routing.gate is {guarantee.gate}; set it back, "
            f"or {_FRESH}"
        )
    missing = found.unanswered(reviews.answers)
    if missing == found.tasks.num_rows:
        plans = ", ".join(str(plan.number) for plan in found.plans)
        raise UserError(
            f"none of the {missing:,} certification tasks of review plan {plans} is answered; answer them and import "
            "the verdicts: vouch verdicts CAMPAIGN FILE"
        )
    if missing and not unanswered_as_wrong:
        raise UserError(
            f"{missing:,} of {plural(found.tasks.num_rows, 'certification task')} without an answer; a part of a "
            "sample certifies nothing: answer them (vouch verdicts CAMPAIGN --tasks FILE --plan "
            f"{found.plans[-1].number} writes them), or count them as wrong with --unanswered-as-wrong"
        )
    return found


def _simulated(reviews: RunReviews, found: Round) -> bool:
    ids = found.tasks["label_id"]
    answered = reviews.answers.wrong_of(ids) != NO_ANSWER
    simulated = reviews.answers.simulated_of(ids)[answered]
    if simulated.any() and not simulated.all():
        raise UserError(
            f"a simulated reviewer answered {int(simulated.sum()):,} of {len(simulated):,} certification tasks, people "
            "the others; certify by either alone: import people's verdicts on those as well (vouch verdicts CAMPAIGN "
            f"FILE), or {_FRESH}"
        )
    return bool(simulated.any())


def _remarks(reviews: RunReviews, found: Round, of_round: RoundLabels, policy: Policy | None) -> list[str]:
    remarks = []
    if not of_round.whole:
        remarks.append(
            "labels have come or gone since the certification sample was drawn; the guarantee is about those it was "
            "drawn from"
        )
    if of_round.kept.brier >= of_round.kept.brier_of_rate:
        remarks.append(
            f"the signals tell right from wrong no better than guessing (Brier {of_round.kept.brier:.4f}, of the "
            f"constant share {of_round.kept.brier_of_rate:.4f}); more reviews for fitting may help: "
            "vouch plan-reviews CAMPAIGN --stage first"
        )
    if (missing := found.unanswered(reviews.answers)) > 0:
        tasks = plural(
            missing, "certification task without an answer was", "certification tasks without an answer were"
        )
        remarks.append(f"{tasks} counted as wrong")
    if policy is not None and (ended := expired(policy, reviews.plans, reviews.answers)):
        remarks.append(f"{ended}; to draw a new sample: vouch plan-reviews CAMPAIGN")
    if policy is not None and not found.honeypots.num_rows:
        remarks.append("reviewers were trusted: no honeypots were mixed in (plan-reviews --honeypots N)")
    return remarks


def policy_groups(judged: Sequence[Judged]) -> tuple[Group, ...]:
    """The declared groups, with the classes that the guarantee is about."""
    return tuple(_group(one) for one in judged if one.classes)


def not_sampled(judged: Sequence[Judged]) -> tuple[str, ...]:
    """The classes of which no label was drawn."""
    return tuple(name for one in judged for name in one.left_out)


def make_policy(
    reviews: RunReviews,
    found: Round,
    of_round: RoundLabels,
    test: CertificationTest,
    tested: RoundResult,
    *,
    simulated: bool,
) -> Policy:
    """Make the policy and keep it; the same certification again gives the policy that is kept already.

    Its version is certified-<look>-<hash>, the hash over all it says but the version itself and the time. Classes of
    which no label was drawn are a group of their own, which accepts nothing.
    """
    groups = (*policy_groups(tested.judged), *_group_not_sampled(not_sampled(tested.judged)))
    plan, kept, candidates, guarantee = found.plan, of_round.kept, of_round.candidates, reviews.guarantee
    certification = Certification(
        precision=guarantee.precision,
        confidence=guarantee.confidence,
        gate=guarantee.gate,
        look=test.look,
        inputs=reviews.current.inputs,
        calibrator=kept.calibrator,
        fit_labels=kept.labels,
        brier=kept.brier,
        brier_of_rate=kept.brier_of_rate,
        fit_share=plan.fit_share,
        seed=plan.seed,
        plans=test.plans,
        verdicts=verdicts_of(reviews, found),
        reviewers=tested.reviewers,
        simulated=simulated,
        reference=reference(reviews.labels, candidates.scores, candidates.certify_side),
        created=test.created,
    )
    rules = [group.model_dump(mode="json") for group in groups]
    version = content_name(test.look, rules, certification.model_dump(mode="json"))
    policy = Policy(version=version, basis="certified", groups=groups, certification=certification)
    try:
        return Policy.model_validate_json(reviews.workspace.get(policy_key(version)).data)
    except ObjectMissingError:
        write_policy(reviews.workspace, policy)
        return policy


def _group(one: Judged) -> Group:
    found, precisions = one.certificate, one.precisions
    certified = found.threshold is not None
    return Group(
        name=one.plan.name,
        classes=one.classes,
        p_correct=found.threshold,
        certificate=GroupCertificate(
            labels=one.labels,
            accepted=one.accepted,
            reviewed=found.reviewed,
            errors=found.errors,
            limit=one.limit,
            bound=found.bound,
            p_value=found.p_value,
            delta=one.delta,
            tested=tuple(found.tested.tolist()),
            refusal=found.refusal,
            more_reviews=found.more_reviews,
            accepted_precision=_known(precisions.accepted),
            accepted_at_least=precisions.accepted_at_least if certified else 0,
            delivered_precision=_known(precisions.delivered),
            delivered_at_least=precisions.delivered_at_least if certified else 0,
        ),
    )


def _group_not_sampled(classes: tuple[str, ...]) -> tuple[Group, ...]:
    if not classes:
        return ()
    refusal = "no label of these classes was drawn, so nothing is known of them"
    certificate = GroupCertificate(
        labels=0, accepted=0, reviewed=0, errors=0, limit=0, bound=1, p_value=1, delta=0, tested=(), refusal=refusal
    )
    return (Group(name="not sampled", classes=classes, certificate=certificate),)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def class_estimates(judged: Sequence[Judged], reviewed: Reviewed, candidates: Candidates) -> tuple[ClassEstimate, ...]:
    """Estimate each class of the certified groups, few labels being drawn towards the share of their group.

    A class of which no label was reviewed has no estimate: the share of its group says nothing of it.
    """
    found: list[ClassEstimate] = []
    names = np.array(reviewed.classes, dtype=np.str_)
    for one in judged:
        threshold = one.certificate.threshold
        if threshold is None:
            continue
        above = reviewed.scores >= threshold
        counts = np.array([int((above & (names == name)).sum()) for name in one.classes], np.int64)
        errors = np.array([int((above & reviewed.wrong & (names == name)).sum()) for name in one.classes], np.int64)
        shares = shrunken_shares(errors, counts)
        for name, count, wrong, share in zip(
            one.classes, counts.tolist(), errors.tolist(), shares.tolist(), strict=True
        ):
            inside = candidates.certify_side & (candidates.class_index == candidates.class_names.index(name))
            accepted = int((inside & (candidates.scores >= threshold)).sum())
            found.append(
                ClassEstimate(
                    name=name,
                    group=one.plan.name,
                    accepted=accepted,
                    reviewed=count,
                    errors=wrong,
                    precision=1 - share if accepted and count else None,
                )
            )
    return tuple(found)
