"""What the report says of the policy that decided."""

import math
from typing import Final

from schemas.campaign import RoutingConfig
from schemas.policy import Certification, Group, Policy
from schemas.report import GroupReport, Interval, PolicyReport, Standing
from tasks.policy import EXPIRED, accepts
from tasks.report.formats import cut

OF_GATE: Final = {
    "delivered": "of the labels that are delivered, those that people kept included,",
    "accepted": "of the labels that the policy accepted",
}


def policy_report(policy: Policy, routing: RoutingConfig, labels: int, *, expired: bool) -> PolicyReport:
    """Say what a policy accepts, and on whose word.

    Args:
        policy: The policy that decided.
        routing: What the campaign asks for, where the policy promises nothing.
        labels: Labels of the run.
        expired: Whether audits have expired it.
    """
    promise = policy.certification
    asked = promise or routing
    return PolicyReport(
        version=policy.version,
        standing=_standing(policy, labels, expired=expired),
        precision=asked.precision,
        confidence=asked.confidence,
        gate=asked.gate,
        look=promise.look if promise else None,
        created=promise.created if promise else None,
        fit_labels=promise.fit_labels if promise else None,
        planted=promise.reviewers.planted if promise else 0,
        missed=promise.reviewers.missed if promise else 0,
        groups=tuple(_group(group, promise) for group in policy.groups),
    )


def promise_sentence(policy: PolicyReport) -> str:
    """Give the promise, or the lack of one, in one sentence."""
    least, sure = f"{100 * policy.precision:.4g}%", f"{100 * policy.confidence:.4g}%"
    promise = f"at least {least} {OF_GATE[policy.gate]} are correct, with {sure} confidence"
    if policy.gate == "delivered":
        promise += ", once people have decided those that wait"
    match policy.standing:
        case "certified":
            return f"{promise[0].upper()}{promise[1:]}, in every certified group of classes."
        case "simulated":
            return f"A simulated reviewer answered, so nothing is certified; with people it would say: {promise}."
        case "expired":
            return "Audits showed that the promise no longer holds: the policy has expired, and every label waits."
        case "user_thresholds":
            return "Labels were accepted by the campaign's own thresholds; no precision is promised."
        case "nothing_accepted":
            return "No rule allows any label, so every label waits for a person; nothing is promised."
        case "empty":
            return "There are no labels yet, so there is nothing to promise."


def _standing(policy: Policy, labels: int, *, expired: bool) -> Standing:
    if expired or policy.version.startswith(EXPIRED):
        return "expired"
    if not labels:
        return "empty"
    if not accepts(policy):
        return "nothing_accepted"
    if policy.certification is None:
        return "user_thresholds"
    return "simulated" if policy.certification.simulated else "certified"


def _group(group: Group, promise: Certification | None) -> GroupReport:
    found = group.certificate
    plain = GroupReport(name=group.name, classes=group.classes, rule=_rule(group), p_correct=group.p_correct)
    if found is None or promise is None:
        return plain
    return GroupReport(
        **plain.model_dump(exclude_unset=True),
        labels=found.labels,
        accepted=found.accepted,
        reviewed=found.reviewed,
        errors=found.errors,
        limit=found.limit,
        bound=found.bound,
        delta=found.delta,
        accepted_precision=_at_least(found.accepted_precision, found.accepted_at_least, promise),
        delivered_precision=_at_least(found.delivered_precision, found.delivered_at_least, promise),
        refusal=found.refusal,
        more_reviews=found.more_reviews,
    )


def _rule(group: Group) -> str:
    if group.p_correct is not None:
        return f"p_correct >= {cut(group.p_correct)}"
    if group.accept is not None:
        return ", ".join(f"{name} >= {least:g}" for name, least in group.accept.required().items())
    return ""


def _at_least(value: float | None, low: float, promise: Certification) -> Interval | None:
    if value is None or math.isnan(value):
        return None
    return Interval(value=value, low=low, high=1, confidence=promise.confidence)
