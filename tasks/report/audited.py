"""What the report says of blind audits."""

import math

from schemas.policy import Policy
from schemas.report import AuditReport, ExpiryReport, Interval
from schemas.reviews import ReviewPlan
from tasks.certify.monitor import AuditDraw, audit_draws, monitor
from tasks.reviews.plans import Plans
from tasks.reviews.resolve import Answers
from tasks.statistics.monitoring import Estimate


def audit_reports(policy: Policy, plans: Plans, answers: Answers, confidence: float) -> tuple[AuditReport, ...]:
    """Describe the audits of a policy, the latest first.

    Args:
        policy: The policy that decided.
        plans: All review plans of the run.
        answers: The verdicts resolved.
        confidence: Of the intervals.
    """
    by_number = {plan.number: plan for plan, _ in plans}
    draws = audit_draws(plans, answers, policy.version, 1 - confidence)
    return tuple(_audit(draw, by_number[draw.plan], policy.version, confidence) for draw in reversed(draws))


def expiry_report(policy: Policy, plans: Plans, answers: Answers) -> ExpiryReport | None:
    """Say where the bets against a certified policy stand; None while no audit is complete."""
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
