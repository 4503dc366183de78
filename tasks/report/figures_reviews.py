"""Collects the report's figures about reviews: answers and time of people, policy, audits, recall, drift."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import RoutingConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Certification, Group, Policy
from vouch_labels.schemas.report import (
    AuditReport,
    DriftReport,
    ExpiryReport,
    GroupReport,
    Interval,
    PolicyReport,
    PolicyStatus,
    RecallInterval,
    RecallPart,
    RecallReport,
    SignalDrift,
    TimeReport,
    Verdicts,
)
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.schemas.text import assumption_text, coverage_text, cut
from vouch_labels.tasks.arrow import numbers
from vouch_labels.tasks.certify.monitor import AuditDraw, audit_draws, audit_factor, drifts, monitor, percentiles
from vouch_labels.tasks.certify.recall import recall_of_run
from vouch_labels.tasks.labels.arrays import RunLabels
from vouch_labels.tasks.policy import EXPIRED, accepts
from vouch_labels.tasks.reviews.plans import DRAW_BOX_S, VERIFY_S, Plans
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers, ImageAnswers
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints
from vouch_labels.tasks.statistics.monitoring import Drift, Estimate
from vouch_labels.tasks.statistics.recall import Recall

PURPOSES: Final = ("fit", "certify", "audit")
"""Of tasks that are drawn at random; others are chosen, and say nothing of the whole."""

OF_GATE: Final = {
    "delivered": "of the labels that are delivered, those that people kept included,",
    "accepted": "of the labels that the policy accepted",
}

_CERTIFIED: Final = ("labels", "accepted", "reviewed", "errors", "limit", "bound", "delta", "refusal", "more_reviews")
"""Of a group, what stands in the report as in its certificate."""


@dataclass(frozen=True)
class Reviewed:
    """n labels, each once."""

    rows: Ints
    """(n,) rows of the run's labels."""
    wrong: Bools
    """(n,) disputed ones count as wrong."""
    weights: Floats
    """(n,) 1 / inclusion probability."""
    held_out: Bools
    """(n,) whether the calibrator has not been fitted to it."""


def reviewed_labels(labels: RunLabels, plans: Plans, answers: Answers) -> Reviewed:
    """Find the labels of a run that were drawn at random and have an answer."""
    tasks = _drawn(plans)
    rows = labels.places(tasks["label_id"])
    wrong = answers.wrong_of(tasks["label_id"].combine_chunks())
    use = (rows >= 0) & (wrong != NO_ANSWER)
    held_out = numbers(pc.not_equal(tasks["purpose"], "fit"), np.bool_)
    inclusion = numbers(tasks["inclusion"], np.float64)
    rows, first = np.unique(rows[use], return_index=True)
    # A label drawn for fitting, whatever it was drawn for besides, is one that the calibrator knows.
    seen = np.isin(rows, labels.places(tasks.filter(pc.equal(tasks["purpose"], "fit"))["label_id"]))
    return Reviewed(
        rows=rows.astype(np.int64),
        wrong=wrong[use][first] != 0,
        weights=1 / inclusion[use][first],
        held_out=held_out[use][first] & ~seen,
    )


def asked(plans: Plans) -> set[str]:
    """Ids of all labels that were ever asked about, honeypots included."""
    return {name for _, tasks in plans for name in tasks["label_id"].to_pylist() if name is not None}


def _drawn(plans: Plans) -> pa.Table:
    table = pa.concat_tables([TASKS.empty_table(), *(tasks for _, tasks in plans)])
    chosen = pc.and_(pc.is_in(table["purpose"], value_set=pa.array(PURPOSES)), pc.is_valid(table["inclusion"]))
    return table.filter(pc.and_(chosen, pc.is_valid(table["label_id"])))


def policy_report(policy: Policy, routing: RoutingConfig, labels: int, *, expired: bool) -> PolicyReport:
    """Describe what a policy accepts and what it rests on; routing is shown where the policy guarantees nothing."""
    guarantee = policy.certification
    asked = guarantee or routing
    return PolicyReport(
        version=policy.version,
        standing=_status(policy, labels, expired=expired),
        precision=asked.precision,
        confidence=asked.confidence,
        gate=asked.gate,
        look=guarantee.look if guarantee else None,
        created=guarantee.created if guarantee else None,
        fit_labels=guarantee.fit_labels if guarantee else None,
        planted=guarantee.reviewers.planted if guarantee else 0,
        missed=guarantee.reviewers.missed if guarantee else 0,
        assumed_missed=guarantee.reviewers.assumed if guarantee else 0,
        covers=guarantee.covers if guarantee else (),
        groups=tuple(_group(group, guarantee) for group in policy.groups),
    )


def guarantee_sentence(policy: PolicyReport) -> str:
    """Give the guarantee, or the lack of one, in one sentence."""
    least, sure = f"{100 * policy.precision:.4g}%", f"{100 * policy.confidence:.4g}%"
    guarantee = f"at least {least} {OF_GATE[policy.gate]} are correct, with {sure} confidence"
    if policy.gate == "delivered":
        guarantee += ", once people have decided those that wait"
    if policy.assumed_missed:
        guarantee += f", {assumption_text(policy.assumed_missed)}"
    if policy.covers:
        labels, images = sum(one.labels for one in policy.covers), sum(one.images for one in policy.covers)
        guarantee += f"; {coverage_text(labels, images, policy.covers[-1].created)}"
    match policy.standing:
        case "certified":
            return f"{guarantee[0].upper()}{guarantee[1:]}, in every certified group of classes."
        case "simulated":
            return f"A simulated reviewer answered, so nothing is certified; with people it would say: {guarantee}."
        case "expired":
            return "Answers no longer support the guarantee: the policy has expired, and every label waits."
        case "user_thresholds":
            return "Labels were accepted by the campaign's own thresholds; no precision is guaranteed."
        case "nothing_accepted":
            return "No rule allows any label, so every label waits for a person; nothing is guaranteed."
        case "empty":
            return "There are no labels yet, so there is nothing to guarantee."


def _status(policy: Policy, labels: int, *, expired: bool) -> PolicyStatus:
    if expired or policy.version.startswith(EXPIRED):
        return "expired"
    if not labels:
        return "empty"
    if not accepts(policy):
        return "nothing_accepted"
    if policy.certification is None:
        return "user_thresholds"
    return "simulated" if policy.certification.simulated else "certified"


def _group(group: Group, guarantee: Certification | None) -> GroupReport:
    found = group.certificate
    plain = GroupReport(name=group.name, classes=group.classes, rule=_rule(group), p_correct=group.p_correct)
    if found is None or guarantee is None:
        return plain
    return GroupReport(
        **plain.model_dump(exclude_unset=True),
        **found.model_dump(include=set(_CERTIFIED)),
        accepted_precision=_at_least(found.accepted_precision, found.accepted_at_least, guarantee),
        delivered_precision=_at_least(found.delivered_precision, found.delivered_at_least, guarantee),
    )


def _rule(group: Group) -> str:
    if group.p_correct is not None:
        return f"p_correct >= {cut(group.p_correct)}"
    if group.accept is not None:
        return ", ".join(f"{name} >= {least:g}" for name, least in group.accept.required().items())
    return ""


def _at_least(value: float | None, low: float, guarantee: Certification) -> Interval | None:
    if value is None or math.isnan(value):
        return None
    return Interval(value=value, low=low, high=1, confidence=guarantee.confidence)


def audit_reports(policy: Policy, plans: Plans, answers: Answers, confidence: float) -> tuple[AuditReport, ...]:
    """Describe the audits of a policy, the latest first."""
    by_number = {plan.number: plan for plan, _ in plans}
    draws = audit_draws(policy, plans, answers, 1 - confidence)
    return tuple(_audit(draw, by_number[draw.plan], policy.version, confidence) for draw in reversed(draws))


def expiry_report(policy: Policy, plans: Plans, answers: Answers) -> ExpiryReport | None:
    """Say where the bets against a certified policy stand; None while no audit is started."""
    found = monitor(policy, plans, answers)
    if found is None or not found.batches:
        return None
    return ExpiryReport(batches=found.batches, wealth=found.wealth, limit=1 / found.delta, expired=found.expired)


def interval(found: Estimate, confidence: float) -> Interval:
    """An estimate as the report has it."""
    value = None if math.isnan(found.value) else found.value
    return Interval(value=value, low=max(0.0, found.low), high=min(1.0, found.high), confidence=confidence)


def _audit(draw: AuditDraw, plan: ReviewPlan, version: str, confidence: float) -> AuditReport:
    answered = len(draw.audited.correct)
    return AuditReport(
        plan=draw.plan,
        created=plan.created,
        policy=version,
        labels=draw.labels,
        asked=answered + draw.unanswered,
        answered=answered,
        wrong=int((~draw.audited.correct).sum()),
        precision=interval(draw.estimate, confidence) if draw.estimate else None,
    )


def recall_report(
    labels: RunLabels,
    plans: Plans,
    images: ImageAnswers,
    answers: Answers,
    inputs: Mapping[str, str],
    routing: RoutingConfig,
) -> RecallReport:
    """Estimate recall from exhaustively annotated images, or say what it takes."""
    delta = 1 - routing.confidence
    try:
        found = recall_of_run(labels, plans, images, answers, inputs=inputs, delta=delta)
    except UserError as error:
        return RecallReport(advice=str(error))
    return RecallReport(
        accepted=_recall_interval(found.accepted, routing.confidence),
        delivered=_recall_interval(found.delivered, routing.confidence),
        parts=tuple(RecallPart.model_validate(one, from_attributes=True) for one in found.strata),
        undecided=found.incomplete,
        passed_over=found.passed_over,
        simulated=found.simulated,
    )


def _recall_interval(found: Recall, confidence: float) -> RecallInterval:
    return RecallInterval(
        **interval(found, confidence).model_dump(),
        most_missed=found.most_missed,
        images_with_misses=found.images_with_misses,
    )


def drift_report(policy: Policy, labels: RunLabels, chosen: Bools) -> DriftReport:
    """Hold every signal of these labels, (N,), against its percentiles in the batch that was certified."""
    guarantee = policy.certification
    if guarantee is None or not guarantee.reference:
        return DriftReport(missing="only a certified policy keeps the scores of its batch to compare with")
    found: dict[str, Drift] = {}
    signals: list[SignalDrift] = []
    for name, one, values in drifts(guarantee.reference, labels, labels.p_correct, chosen):
        known = values[np.isfinite(values)]
        found[name] = one
        signals.append(
            SignalDrift(
                signal=name,
                distance=one.distance,
                drifted=one.audit_factor > 1,
                before=guarantee.reference[name],
                now=percentiles(known) if len(known) else (),
            )
        )
    named = list(guarantee.reference)
    ordered = sorted(signals, key=lambda one: (-one.distance, named.index(one.signal)))
    return DriftReport(signals=tuple(ordered), audit_factor=audit_factor(found))


def of_this_run(verdicts: pa.Table, labels: RunLabels, asked: set[str]) -> pa.Table:
    """Keep the verdicts about a run, each once: those on its labels, on its honeypots (ids in `asked`) and images."""
    ids = verdicts["label_id"]
    of_run = pa.array(labels.places(ids) >= 0)
    on_label = pc.or_(of_run, pc.is_in(ids, value_set=pa.array(sorted(asked), pa.string()), skip_nulls=True))
    chosen = verdicts.filter(pc.or_(on_label, pc.and_(pc.is_null(ids), _of_images(labels, verdicts["key"], ids))))
    return chosen.group_by(chosen.column_names).aggregate([])


def _of_images(labels: RunLabels, keys: pa.ChunkedArray, label_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which keys are images of the run; nothing is read where no verdict is about an image."""
    if not label_ids.null_count:
        return pa.chunked_array([pa.repeat(False, len(keys))])
    return pc.is_in(keys, value_set=labels.keys)


def verdicts_report(
    mine: pa.Table, everything: pa.Table, labels: RunLabels, answers: Answers, images: ImageAnswers
) -> Verdicts:
    """Count verdicts, those `of_this_run` and all of the workspace; of reviewers only their number is given."""
    ours = np.flatnonzero(labels.places(answers.ids) >= 0)
    no_image = pa.array([], pa.string())
    checked, missed = (
        pc.is_in(keys, value_set=labels.keys if len(keys) else no_image)
        for keys in (images.checked["key"], images.missed["key"])
    )
    people = mine.filter(pc.invert(mine["simulated"]))
    ids = everything["label_id"].drop_null()
    foreign = pc.invert(pc.is_in(ids, value_set=mine["label_id"].combine_chunks()))
    return Verdicts(
        labels=len(ours),
        answers=dict(Counter(answers.verdict[place] for place in ours.tolist()).most_common()),
        images=len(images.checked["key"].filter(checked).unique()),
        missed=int(pc.sum(missed).as_py() or 0),
        reviewers=len(pc.unique(people["reviewer"])),
        simulated=int(answers.simulated[ours].sum()),
        foreign=int(pc.sum(foreign).as_py() or 0),
    )


def time_report(mine: pa.Table, labels: RunLabels, answered: NDArray[np.int8]) -> TimeReport:
    """Add up the time that people spent, and what accepted labels without a review saved them.

    answered: what was said of each label, (N,), as `Answers.wrong_of` has it.
    """
    accepted = int(labels.accepted.sum())
    unseen = int((labels.accepted & (answered == NO_ANSWER)).sum())
    delivered = accepted + int((~labels.accepted & (answered == CORRECT)).sum())
    spent = float(pc.sum(mine["seconds"]).as_py() or 0)
    return TimeReport(
        spent=spent,
        simulated=bool(pc.any(mine["simulated"], min_count=0).as_py()),
        untimed=mine["seconds"].null_count,
        verify_s=VERIFY_S,
        draw_s=DRAW_BOX_S,
        saved=unseen * VERIFY_S,
        unseen=unseen,
        waiting=int((~labels.accepted & (answered == NO_ANSWER)).sum()) * VERIFY_S,
        delivered=delivered,
        per_box=spent / delivered if delivered and spent else None,
    )
