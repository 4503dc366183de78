"""Certifies a run: from the verdicts on its validation sample to a policy, or to the reasons why there is none.

The precision of each class's accepted labels is estimated for reading beside the certificates; no guarantee is given
by it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import NotCertifiedError, UserError
from vouch_labels.schemas.policy import (
    MOST_NAMED,
    Certification,
    Certified,
    ClassEstimate,
    Covered,
    Group,
    GroupCertificate,
    LogMark,
    Policy,
)
from vouch_labels.schemas.reviews import SecondReadings
from vouch_labels.schemas.text import assumption_text, pct, plural, some
from vouch_labels.tasks.certify.active import active_version
from vouch_labels.tasks.certify.data import Candidates, Guarantee, RunReviews, read_run_reviews
from vouch_labels.tasks.certify.judge import (
    Judged,
    Reviewed,
    RoundResult,
    could_certify,
    describe_test,
    judge_round,
    looks_at,
    verdicts_of,
)
from vouch_labels.tasks.certify.monitor import (
    expired,
    least_p,
    outside_of,
    reference,
    root_of,
)
from vouch_labels.tasks.certify.rounds import (
    Round,
    RoundLabels,
    drawn_by_earlier_version,
    labels_of_round,
    last_round,
    number_of_test,
    policy_in_force,
    record_test,
)
from vouch_labels.tasks.certify.top_up import covered_by, extend, extension, newer_sample
from vouch_labels.tasks.policy import (
    changed_inputs,
    keep_certified,
)
from vouch_labels.tasks.reviews.log import CertificationTest
from vouch_labels.tasks.reviews.plans import minutes_for
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, second_readings
from vouch_labels.tasks.statistics.bounds import shrunken_shares
from vouch_labels.tasks.statistics.threshold_tests import delta_of_growth, delta_of_test

_PLAN: Final = "use `vouch plan-reviews`"
_ENDS: Final = (
    "on a changed fingerprint at once, for these make other labels; when the verdicts that it rests on are changed so "
    "that they no longer certify it"
)
_FRESH: Final = "draw again: vouch plan-reviews CAMPAIGN --stage certify --fresh"


def certify_campaign(campaign: Campaign, unanswered_as_wrong: bool = False) -> Certified:
    """Certify by the last round of certification tasks, and write the policy if anything is certified.

    Where audits of new labels were answered since the active policy was certified, it is extended to those labels, if
    they allow it: that is no test of the sample, and has a part of delta of its own.

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
    active = policy_in_force(reviews)
    news = extension(reviews.workspace, active, reviews.plans, reviews.answers) if active else None
    if active and news and (news.passes or not newer_sample(reviews, active)):
        assert active.certification is not None
        reviewers = active.certification.reviewers
        _checked_readings(reviews, reviewers.assumed, measured=reviewers.planted > 0)
        return extend(reviews, active, news)
    found = _round_to_certify(reviews, unanswered_as_wrong)
    simulated = _simulated(reviews, found)
    readings = _checked_readings(reviews, reviews.guarantee.missed, measured=found.honeypots.num_rows > 0)
    of_round = labels_of_round(reviews, found)
    test = describe_test(reviews, found, of_round, unanswered_as_wrong=unanswered_as_wrong)
    number = number_of_test(reviews, test)
    judge = partial(judge_round, reviews, found, of_round, unanswered_as_wrong=unanswered_as_wrong)
    able = could_certify(reviews, found, of_round, number, began=test.began, unanswered_as_wrong=unanswered_as_wrong)
    if not able:
        # To draw more of it is a test, so what is drawn then must do for the next.
        if not test.whole:
            raise NotCertifiedError(_too_early(test.answered or 0, found.unanswered(reviews.answers)))
        raise _insufficient(judge(number + 1, began=test.began, if_correct=True), found)
    test, entry = record_test(reviews, test)
    tested = judge(test.look, began=test.began)
    judged = tested.judged
    policy = None
    if tested.certifies:
        policy = make_policy(reviews, found, of_round, test, tested, simulated=simulated, entry=entry)
    if policy and active and root_of(active) == policy.version:
        policy = active  # which covers more
    covers, outside, accepted = (
        _covers(reviews, found, tested),
        ~of_round.candidates.population,
        np.zeros_like(reviews.unknown),
    )
    if policy is not None and policy.certification is not None:
        covers, outside = policy.certification.covers, outside_of(reviews, policy)
        least = least_p(policy, reviews.labels.class_names)[reviews.labels.class_index]
        accepted = ~outside & (of_round.candidates.scores >= least)
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
        covers=covers,
        outside=int((reviews.unknown & outside).sum()),
        accepted=int(accepted.sum()),
        waiting=int((reviews.unknown & ~accepted).sum()),
        now=_accepted_precision(judged),
        reviewers=tested.reviewers,
        simulated=simulated,
        more_reviews=_more_reviews(judged) if policy is None else None,
        unanswered=0 if tested.whole else found.unanswered(reviews.answers),
        remarks=(
            *([readings.to_line()] if readings.labels else []),
            *_remarks(reviews, found, of_round, policy, tested),
            *_restarted(reviews, found, test),
            *_imprecise(judged, reviews.guarantee),
            "another test, at changed verdicts or for another precision, would be tested at "
            f"{delta_of_test(1 - reviews.guarantee.confidence, test.look + 1):.4g}",
        ),
    )


def _covers(reviews: RunReviews, found: Round, tested: RoundResult) -> tuple[Covered, ...]:
    population = found.plan.population
    if population is not None and not tested.whole:
        # Labels of the sample that wait for an answer are among those that the test after any answer is about.
        return (population.model_copy(update={"plan": found.plans[0].number}),)
    return () if population is None else (covered_by(reviews, population, found.plans[0].number, found.certify),)


def _accepted_precision(judged: Sequence[Judged]) -> float | None:
    """Estimated precision of the accepted labels of all groups; None where nothing is accepted."""
    known = [(one.accepted, one.precisions.accepted) for one in judged if one.accepted]
    accepted = sum(count for count, _ in known)
    return float(sum(count * share for count, share in known)) / accepted if accepted else None


def _too_early(answered: int, waiting: int) -> str:
    """Say that the answers so far could certify nothing, and what to do."""
    found = f"the first {plural(answered, 'label')} in the order drawn could certify nothing even if all were correct"
    if not answered:
        found = "the label that was drawn first has no answer"
    return f"{found}, so no test was spent; answer more of the {waiting:,} of the sample that wait, then certify"


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
        known = int((reviews.labels.places(reviews.answers.ids) >= 0).sum())
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
    if plan.population is None:
        raise UserError(drawn_by_earlier_version(plan))
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
    any_answer = found.any_time and not guarantee.leaves_out
    if missing and not unanswered_as_wrong and any_answer and not found.answered(reviews.answers):
        raise UserError(_too_early(0, missing))
    if missing and not unanswered_as_wrong and not any_answer:
        raise UserError(
            f"{missing:,} of {plural(found.tasks.num_rows, 'certification task')} without an answer; a part of a "
            "sample certifies nothing: answer them (vouch verdicts CAMPAIGN --tasks FILE --plan "
            f"{found.plans[-1].number} writes them), or count them as wrong with --unanswered-as-wrong"
        )
    return found


def _checked_readings(reviews: RunReviews, missed: float, *, measured: bool) -> SecondReadings:
    """What second readings tell of what reviewers miss, where nothing tells that they miss more than is assumed.

    Raises:
        UserError: It does.
    """
    run = reviews.labels.places(reviews.verdicts["label_id"].fill_null("").to_pylist()) >= 0
    readings = second_readings(reviews.verdicts.filter(pa.array(run)), reviews.answers)
    # Without an assumption people are trusted as they are.
    if readings.low is not None and 0 < missed < readings.low and not measured:
        raise UserError(
            f"{readings.to_line()}: more than the {pct(missed)} of routing.missed, so nothing is certified on that "
            f"assumption; raise routing.missed, measure it with honeypots (vouch plan-reviews --honeypots N), or have "
            "the answers looked through again"
        )
    return readings


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


def _remarks(
    reviews: RunReviews, found: Round, of_round: RoundLabels, policy: Policy | None, tested: RoundResult
) -> list[str]:
    remarks = []
    if not of_round.whole:
        remarks.append(
            "labels have gone since the certification sample was drawn; the guarantee is about those it was drawn from"
        )
    if of_round.kept.brier >= of_round.kept.brier_of_rate:
        remarks.append(
            f"the signals tell right from wrong no better than guessing (Brier {of_round.kept.brier:.4f}, of the "
            f"constant share {of_round.kept.brier_of_rate:.4f}); more reviews for fitting may help: "
            "vouch plan-reviews CAMPAIGN --stage first"
        )
    sampled = set(tested.reviewed.classes)
    certified = (one for one in tested.judged if one.certificate.threshold is not None)
    if unsampled := [name for one in certified for name in one.classes if name not in sampled]:
        have = "class has" if len(unsampled) == 1 else "classes have"
        remarks.append(
            f"{len(unsampled):,} {have} no label in the sample, and share the guarantee of their group as a whole: "
            f"{some(unsampled, MOST_NAMED)} (routing.unsampled: review leaves them to people)"
        )
    missing = found.unanswered(reviews.answers)
    if missing and not tested.whole:
        seen, drawn = len(tested.reviewed.wrong), found.certify.num_rows
        remarks.append(
            f"by the first {seen:,} of {drawn:,} labels in the order drawn; to certify again after more answers is the "
            "same test, and may accept more"
        )
    elif missing:
        tasks = plural(
            missing, "certification task without an answer was", "certification tasks without an answer were"
        )
        remarks.append(f"{tasks} counted as wrong")
    if policy is not None and (ended := expired(policy, reviews.plans, reviews.answers)):
        remarks.append(f"{ended}; to draw a new sample: vouch plan-reviews CAMPAIGN")
    if policy is not None and not found.honeypots.num_rows:
        missed = reviews.guarantee.missed
        assumed = f"{assumption_text(missed)} (routing.missed)" if missed else "if reviewers miss nothing"
        remarks.append(f"it holds {assumed}, which is assumed: plan-reviews --honeypots N measures it")
    return remarks


def _restarted(reviews: RunReviews, found: Round, test: CertificationTest) -> list[str]:
    """Say that a test does not go on with the earlier ones of the same question, and why."""
    earlier = [one.look for one in looks_at(reviews.workspace, found, reviews.guarantee) if one.look < test.look]
    if test.answered is None or test.began is not None or not earlier:
        return []
    return [
        f"answers that test {max(earlier)} saw were changed since, by a second reading or a correction, so this is "
        "another test"
    ]


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
    entry: LogMark | None = None,
) -> Policy:
    """Make the policy and keep it; the same certification again gives the policy that is kept already.

    Its version is certified-<look>-<hash>, the hash over all it says but the version itself and the time. Under gate
    "accepted" classes of which no label was drawn are a group of their own, which accepts nothing. entry: the test's in
    the log.
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
        seed=plan.seed,
        covers=_covers(reviews, found, tested),
        # Certificates of one look, after more and more answers, share its part: 1/2, 1/6, 1/12 ..., together at most 1.
        extension_delta=delta_of_growth(1 - guarantee.confidence, test.look)
        / (1 if test.answered is None else (test.repeat + 1) * (test.repeat + 2)),
        plans=test.plans,
        verdicts=verdicts_of(reviews, found),
        answered=test.answered,
        repeat=test.repeat,
        reviewers=tested.reviewers,
        simulated=simulated,
        reference=reference(reviews.labels, candidates.scores, candidates.population),
        audit_expiry=_ENDS,
        log=entry,
        created=test.created,
    )
    return keep_certified(reviews.workspace, groups, certification)


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
            test=one.test,
            basis=one.basis,
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
            inside = candidates.population & (candidates.class_index == candidates.class_names.index(name))
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
