"""Monitors the active policy: precision of what it accepts by blind audits, expiry of its guarantee, drift."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.policy import Certification, Policy
from vouch_labels.schemas.reviews import ReviewPlan
from vouch_labels.tasks.arrow import distinct, numbers
from vouch_labels.tasks.certify.fit import calibrator_fingerprint
from vouch_labels.tasks.labels.arrays import SIGNALS, RunLabels
from vouch_labels.tasks.reviews.plans import Plans, read_plans
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.statistics.bounds import Bools, Floats, binomial_p, upper_bound
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.monitoring import Audited, Drift, Estimate, Monitor, audited_precision, score_drift
from vouch_labels.tasks.store.store import Store

UNKNOWN_P: Final = 1.0
"""Stands for a missing p(correct) in estimates, which are unbiased whatever stands there."""

PERCENTILES: Final = 101
P_CORRECT: Final = "p_correct"
_STEPS: Final = 20
"""Values that stand for each percent of the reference."""


@dataclass(frozen=True)
class AuditDraw:
    """One blind audit of a policy."""

    plan: int
    """Number of its review plan."""
    labels: int
    """Accepted labels that it was drawn from."""
    audited: Audited
    """The labels with an answer; disputed ones count as wrong."""
    missing: Floats
    """Inclusion probabilities of the labels without an answer."""
    simulated: bool
    estimate: Estimate | None
    """Share of correct labels among the accepted ones; None while answers are missing."""

    @property
    def unanswered(self) -> int:
        """Labels without an answer."""
        return len(self.missing)

    def outcomes(self, missing_wrong: bool) -> tuple[Bools, Floats]:
        """Which of all m labels are wrong, (m,), those without an answer as is said; and their inclusion, (m,)."""
        wrong = np.concatenate([~self.audited.correct, np.full(self.unanswered, missing_wrong)])
        return wrong, np.concatenate([self.audited.inclusion, self.missing])


def audit_draws(plans: Plans, answers: Answers, version: str, delta: float) -> list[AuditDraw]:
    """Give the audits of a policy in the order drawn; one that planners at work at the same time both drew, once.

    delta is the chance that an estimate's interval misses the truth.
    """
    found: dict[object, tuple[ReviewPlan, pa.Table]] = {}
    for plan, tasks in plans:
        if plan.audit and plan.audit.policy == version:
            # The second would bet the same answers again, as if they were new.
            found.setdefault(_drawn(tasks), (plan, tasks))
    return [_draw(plan, tasks, answers, delta) for plan, tasks in found.values()]


def monitor(policy: Policy, plans: Plans, answers: Answers) -> Monitor | None:
    """Bet on all audits of a certified policy that were started, in order; None without a certificate.

    A label without an answer must not hide the others. In the last audit it counts as correct, as in one of which less
    than half is answered: bets grow with every wrong label, so they are then below what all answers would give, and the
    chance of a false end stays below delta. In every other audit it counts as wrong, since labels are skipped for a
    reason; answered later, it counts as what it is.

    Audits that a simulated reviewer answered say nothing of a policy that people certified, nor the other way round.

    The bets are against the share of wrong labels that the guarantee leaves to the accepted ones. Gate "accepted": 1 -
    T, at the full delta = 1 - confidence. Gate "delivered": with D delivered labels on A accepted ones (1 - T) D / A,
    where D / A is bounded from above by the certification sample at delta / 2, which leaves delta / 2 for the bets. It
    is that of the batch that was certified; where people keep fewer routed labels later, a fall is noticed later.
    """
    guarantee = policy.certification
    if guarantee is None:
        return None
    delta = 1 - guarantee.confidence
    limit = 1 - guarantee.precision
    if guarantee.gate == "delivered":
        delta /= 2
        limit *= delivered_on_accepted(policy, guarantee, plans, answers, delta)
    found = Monitor(1 - min(limit, 1 - 1e-9), delta)
    for draw, missing_wrong in _started(policy.version, guarantee, plans, answers, delta):
        found = found.after(*draw.outcomes(missing_wrong), draw.labels)
    return found


def _started(
    version: str, guarantee: Certification, plans: Plans, answers: Answers, delta: float
) -> list[tuple[AuditDraw, bool]]:
    """Audits with an answer, and whether those of their labels that have none count as wrong."""
    draws = audit_draws(plans, answers, version, delta)
    return [
        (draw, draw is not draws[-1] and draw.unanswered <= len(draw.audited.correct))
        for draw in draws
        if len(draw.audited.correct) and draw.simulated == guarantee.simulated
    ]


def expired_reason(workspace: Store, run: str, policy: Policy) -> str | None:
    """Say why audits, or corrected verdicts, have ended a policy's guarantee; None while it holds or there is none.

    Computed again from plans and verdicts every time, so there is no state to lose.

    Raises:
        StoreError: A plan or a file of verdicts is damaged.
    """
    if policy.certification is None:
        return None
    plans = read_plans(workspace, run)
    audited = any(plan.audit and plan.audit.policy == policy.version for plan, _ in plans)
    if not audited and not _rests_on(policy.certification, plans):
        return None
    return expired(policy, plans, resolve(read_verdicts(workspace)))


def expired(policy: Policy, plans: Plans, answers: Answers) -> str | None:
    """As `expired_reason`, of plans and answers that were read already."""
    return contradicted(policy, plans, answers) or withdrawn(policy, plans, answers)


def contradicted(policy: Policy, plans: Plans, answers: Answers) -> str | None:
    """Say that audits contradict a policy's guarantee; None while they do not."""
    if not any(plan.audit and plan.audit.policy == policy.version for plan, _ in plans):
        return None
    found = monitor(policy, plans, answers)
    if found is None or policy.certification is None or not found.expired:
        return None
    started = _started(policy.version, policy.certification, plans, answers, found.delta)
    missing = sum(draw.unanswered for draw, missing_wrong in started if missing_wrong)
    counted = f" ({missing:,} without an answer count as wrong: answer them, if they are right)" if missing else ""
    return (
        f"blind audits ({found.batches}) say that more than {1 - found.precision:.1%} of the labels that policy "
        f"{policy.version} accepts are wrong{counted}; review more and certify again"
    )


def withdrawn(policy: Policy, plans: Plans, answers: Answers) -> str | None:
    """Say that people have changed their minds on the labels that a policy rests on, so far that these certify nothing.

    Verdicts may be corrected after a test, and a later test need not come. So where a group has more wrong labels at or
    above its threshold now than its certificate says, the binomial test of that certificate is done again at its level.
    """
    if policy.certification is None or not (kept := _rests_on(policy.certification, plans)):
        return None
    tasks = distinct(pa.concat_tables([table for _, table in kept]), ["label_id"])
    tasks = tasks.filter(pc.equal(tasks["purpose"], "certify"))
    wrong = (answers.wrong_of(tasks["label_id"]) != CORRECT) & (answers.wrong_of(tasks["label_id"]) != NO_ANSWER)
    scores = numbers(tasks["p_correct"], np.float64)
    for group in policy.groups:
        before = group.certificate
        if group.p_correct is None or before is None:
            continue
        inside = numbers(pc.is_in(tasks["class_name"], value_set=pa.array(group.classes)), np.bool_)
        errors = int((inside & wrong & (scores >= group.p_correct)).sum())
        if errors > before.errors and float(binomial_p(errors, before.reviewed, before.limit)) > before.delta:
            return (
                f"verdicts that policy {policy.version} rests on were changed since ({group.name}: {before.errors} "
                f"wrong then, {errors} now), and no longer certify it; use `vouch certify` again"
            )
    return None


def _rests_on(guarantee: Certification, plans: Plans) -> list[tuple[ReviewPlan, pa.Table]]:
    """The plans whose verdicts a policy rests on; none where it was certified for another run."""
    calibrator = calibrator_fingerprint(Calibrator.from_dict(guarantee.calibrator))
    return [(plan, tasks) for plan, tasks in plans if plan.number in guarantee.plans and plan.calibrator == calibrator]


def delivered_on_accepted(
    policy: Policy, guarantee: Certification, plans: Plans, answers: Answers, delta: float
) -> float:
    """Bound the number of delivered labels on each accepted one from above, from the certification sample.

    With r routed and correct of n sampled labels of the classes that the policy accepts, N labels of these on the
    certify side and A of them accepted: (A + u N) / A, u the Clopper-Pearson upper bound of r/n at delta.
    """
    accepting = {
        name: group.p_correct for group in policy.groups if group.p_correct is not None for name in group.classes
    }
    certificates = [group.certificate for group in policy.groups if group.p_correct is not None and group.certificate]
    labels = sum(one.labels for one in certificates)
    accepted = sum(one.accepted for one in certificates)
    routed = sampled = 0
    for plan, tasks in plans:
        if plan.number not in guarantee.plans:
            continue
        rows = tasks.filter(pc.equal(tasks["purpose"], "certify"))
        names = rows["class_name"].to_pylist()
        scores = numbers(rows["p_correct"], np.float64)
        least = np.array([accepting.get(name, np.nan) for name in names], np.float64)
        inside = ~np.isnan(least)
        correct = answers.wrong_of(rows["label_id"]) == CORRECT
        sampled += int(inside.sum())
        routed += int((inside & ~(scores >= least) & correct).sum())
    return (accepted + float(upper_bound(routed, sampled, delta)) * labels) / accepted if accepted else 1.0


def _drawn(tasks: pa.Table) -> frozenset[str]:
    return frozenset(tasks.filter(pc.equal(tasks["purpose"], "audit"))["label_id"].to_pylist())


def _draw(plan: ReviewPlan, tasks: pa.Table, answers: Answers, delta: float) -> AuditDraw:
    audit = plan.audit
    assert audit is not None
    rows = tasks.filter(pc.equal(tasks["purpose"], "audit"))
    codes = answers.wrong_of(rows["label_id"])
    known = codes != NO_ANSWER
    inclusion = numbers(rows["inclusion"], np.float64)
    probabilities = numbers(rows["p_correct"], np.float64)
    audited = Audited(
        probabilities=np.where(np.isnan(probabilities), UNKNOWN_P, probabilities)[known],
        strata=numbers(rows["stratum"], np.int64)[known],
        correct=(codes == CORRECT)[known],
        inclusion=inclusion[known],
    )
    sizes = np.array([stratum.size for stratum in audit.strata], np.int64)
    return AuditDraw(
        plan=plan.number,
        labels=audit.labels,
        audited=audited,
        missing=inclusion[~known],
        simulated=bool(answers.simulated_of(rows["label_id"]).any()),
        estimate=audited_precision(audit.mean_p_correct, sizes, audited, delta) if known.all() else None,
    )


def reference(labels: RunLabels, scores: Floats, chosen: Bools) -> dict[str, tuple[float, ...]]:
    """Take the percentiles 0, 1 ... 100 of every signal and of p(correct); a signal without a value is left out.

    chosen: (N,) labels that count, the certify side.
    """
    found = {}
    for name, values in _columns(labels, scores, chosen).items():
        known = values[np.isfinite(values)]
        if len(known):
            found[name] = tuple(np.percentile(known, np.linspace(0, 100, PERCENTILES)).tolist())
    return found


def drift(
    before: Mapping[str, tuple[float, ...]], labels: RunLabels, scores: Floats, chosen: Bools
) -> dict[str, Drift]:
    """Compare every signal with its percentiles when the policy was certified, the largest distance first."""
    now = _columns(labels, scores, chosen)
    found = {}
    for name, percentiles in before.items():
        if name in now:
            # Percentiles tie the distribution down to one percent, far below the distance that counts as drift.
            places = np.linspace(0, len(percentiles) - 1, _STEPS * (len(percentiles) - 1) + 1)
            found[name] = score_drift(np.interp(places, np.arange(len(percentiles)), percentiles), now[name])
    return dict(sorted(found.items(), key=lambda item: -item[1].distance))


def audit_factor(drifts: Mapping[str, Drift]) -> float:
    """How many times more to audit: as the signal says that asks for most."""
    return max((one.audit_factor for one in drifts.values()), default=1.0)


def _columns(labels: RunLabels, scores: Floats, chosen: Bools) -> dict[str, Floats]:
    columns = {name: labels.signals[chosen, place].astype(np.float64) for place, name in enumerate(SIGNALS)}
    return columns | {P_CORRECT: scores[chosen]}
