"""Monitors the active policy: its blind audits and what they say of new labels, when it ends, drift of signals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.policy import Certification, Group, GroupCertificate, Policy
from vouch_labels.schemas.reviews import ReviewPlan
from vouch_labels.tasks.arrow import distinct, numbers
from vouch_labels.tasks.certify.data import Guarantee, RunReviews, bets_of, exact_test, in_order
from vouch_labels.tasks.certify.fit import calibrator_fingerprint
from vouch_labels.tasks.labels.arrays import RunLabels
from vouch_labels.tasks.policy import LabelNumbers, among, read_coverage, read_population
from vouch_labels.tasks.reviews.log import check_log
from vouch_labels.tasks.reviews.plans import Plans, read_plans, runs_with_plans
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints, ReviewerError, binomial_p, upper_bound
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.monitoring import (
    Audited,
    Batch,
    Drift,
    Estimate,
    Growth,
    Monitor,
    audited_precision,
    score_drift,
)
from vouch_labels.tasks.statistics.threshold_tests import Evidence, Sample, certified_step
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
    """Labels that the policy accepts among those that it was drawn from."""
    audited: Audited
    """Of them, those drawn that have an answer; disputed ones count as wrong."""
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


def root_of(policy: Policy) -> str:
    """The policy that was certified first, where this one extends it to new labels; else itself."""
    found = policy.certification
    return found.extends if found is not None and found.extends is not None else policy.version


def least_p(policy: Policy, class_names: Sequence[str]) -> Floats:
    """Threshold of each class, (K,); NaN where the policy accepts none of it."""
    least = {name: group.p_correct for group in policy.groups for name in group.classes}
    return np.array([np.nan if least.get(name) is None else least[name] for name in class_names], np.float64)


def accepting_classes(policy: Policy, labels: RunLabels) -> Bools:
    """Labels of classes that the policy accepts some of, (N,)."""
    return ~np.isnan(least_p(policy, labels.class_names))[labels.class_index]


def would_accept(policy: Policy, labels: RunLabels) -> Bools:
    """Labels that the policy accepts if it covers them, (N,), by p(correct) as the router stored it."""
    return np.asarray(labels.p_correct >= least_p(policy, labels.class_names)[labels.class_index])


def outside_of(reviews: RunReviews, policy: Policy) -> Bools:
    """Labels of the run that a policy does not cover, (N,); none where it covers all, having been certified of old.

    Raises:
        StoreError: A record of what it covers is missing or damaged.
    """
    covered = read_coverage(reviews.workspace, policy)
    if covered is None:
        return np.zeros(reviews.labels.count, np.bool_)
    return ~among(reviews.numbers, covered.labels)


def drawn_from(workspace: Store, plans: Plans, root: str) -> LabelNumbers:
    """Labels that audits of a policy were drawn from, ascending."""
    names = [plan.population.population for plan, _ in plans if _audits(plan, root) and plan.population]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *(read_population(workspace, name) for name in names)]))


def audit_draws(policy: Policy, plans: Plans, answers: Answers, delta: float) -> list[AuditDraw]:
    """Give the audits of a policy in the order drawn; one that planners at work at the same time both drew, once.

    delta is the chance that an estimate's interval misses the truth.
    """
    return [_draw(policy, plan, tasks, answers, delta) for plan, tasks in _audit_plans(policy, plans)]


def _audit_plans(policy: Policy, plans: Plans) -> list[tuple[ReviewPlan, pa.Table]]:
    found: dict[object, tuple[ReviewPlan, pa.Table]] = {}
    for plan, tasks in plans:
        if _audits(plan, root_of(policy)):
            # The second would bet the same answers again, as if they were new.
            found.setdefault(drawn_labels(tasks), (plan, tasks))
    return list(found.values())


def _audits(plan: ReviewPlan, root: str) -> bool:
    return plan.audit is not None and plan.audit.policy == root


def growth_delta(guarantee: Certification) -> float:
    """Part of delta for the labels that a certificate is extended to; the first policies had .08 * .2^(look - 1)."""
    before = 0.08 * 0.2 ** (guarantee.look - 1) * (1 - guarantee.confidence)
    return before if guarantee.extension_delta is None else guarantee.extension_delta


def growth_of(policy: Policy, plans: Plans, guarantee: Certification, batches: tuple[Batch, ...]) -> Growth:
    """The test of batches of new labels by what a certificate guarantees.

    Audits may be answered in another order than drawn, so the first one drawn fixes what must not depend on answers.
    """
    delta = growth_delta(guarantee)
    missed = max(guarantee.reviewers.assumed, guarantee.reviewers.accepted, guarantee.reviewers.routed)
    drawn = [(len(drawn_labels(tasks)), plan.population) for plan, tasks in _audit_plans(policy, plans)]
    first = next((count / population.labels for count, population in drawn if population is not None), None)
    return Growth(batches, guarantee.precision, delta, missed, first)


def answered_batches(
    policy: Policy, guarantee: Certification, plans: Plans, answers: Answers
) -> list[tuple[ReviewPlan, Batch, int]]:
    """Audits with an answer, what they show, and their labels without one."""
    found = []
    for plan, tasks in _audit_plans(policy, plans):
        rows = tasks.filter(pc.equal(tasks["purpose"], "audit"))
        codes, simulated = codes_for(guarantee, answers, rows["label_id"])
        if plan.population is None or (codes == NO_ANSWER).all() or guarantee.simulated > simulated:
            continue
        wrong = _accepted_rows(policy, rows) & (codes != CORRECT)
        batch = Batch(plan.population.labels, len(codes), int(wrong.sum()), int((codes == CORRECT).sum()))
        found.append((plan, batch, int((codes == NO_ANSWER).sum())))
    return found


def codes_for(guarantee: Certification | None, answers: Answers, label_ids: pa.ChunkedArray) -> tuple[Ints, bool]:
    """What is said of labels, (n,), as `Answers.wrong_of` has it, and whether a simulated reviewer said any of it.

    For what people certified simulated answers are none: they say nothing, and must hide nothing that people said.
    """
    codes, simulated = np.asarray(answers.wrong_of(label_ids), np.int64), answers.simulated_of(label_ids)
    if guarantee is not None and not guarantee.simulated:
        codes, simulated = np.where(simulated, NO_ANSWER, codes), np.zeros(len(codes), np.bool_)
    return codes, bool(simulated.any())


def _accepted_rows(policy: Policy, rows: pa.Table) -> Bools:
    """Which rows of TASKS the policy accepts if it covers them, (n,)."""
    names = rows["class_name"].to_pylist()
    return np.asarray(numbers(rows["p_correct"], np.float64) >= least_p(policy, names))


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
    for draw, missing_wrong in _started(policy, guarantee, plans, answers, delta):
        found = found.after(*draw.outcomes(missing_wrong), draw.labels)
    return found


def _started(
    policy: Policy, guarantee: Certification, plans: Plans, answers: Answers, delta: float
) -> list[tuple[AuditDraw, bool]]:
    """Audits with an answer, and whether those of their labels that have none count as wrong."""
    draws = audit_draws(policy, plans, answers, delta)
    return [
        (draw, draw is not draws[-1] and draw.unanswered <= len(draw.audited.correct))
        for draw in draws
        if len(draw.audited.correct) and draw.simulated == guarantee.simulated
    ]


def expired_reason(workspace: Store, run: str, policy: Policy) -> str | None:
    """Say why corrected verdicts have ended a policy's guarantee; None while it holds or there is none.

    Audits are of new labels, and say nothing of those that it covers; one of before 2026-12 covers new labels as well,
    and ends by them.

    Computed again from plans and verdicts every time, so there is no state to lose.

    Raises:
        StoreError: A plan or a file of verdicts is damaged.
    """
    if policy.certification is None:
        return None
    check_log(workspace)
    plans = read_plans(workspace, run)
    if not rests_on(policy.certification, plans):
        # Certified for another run, if that is known, whose plans say what it rests on.
        others = (read_plans(workspace, other) for other in runs_with_plans(workspace) if other != run)
        plans = next((found for found in others if rests_on(policy.certification, found)), plans)
    audited = any(_audits(plan, root_of(policy)) for plan, _ in plans)
    if not audited and not rests_on(policy.certification, plans):
        return None
    return expired(policy, plans, resolve(read_verdicts(workspace)))


def expired(policy: Policy, plans: Plans, answers: Answers) -> str | None:
    """As `expired_reason`, of plans and answers that were read already."""
    covers_new = policy.certification is not None and not policy.certification.covers
    by_audits = contradicted(policy, plans, answers) if covers_new else None
    return by_audits or withdrawn(policy, plans, answers)


def contradicted(policy: Policy, plans: Plans, answers: Answers) -> str | None:
    """Say that audits contradict a policy's guarantee of the labels they are of; None while they do not."""
    if not any(_audits(plan, root_of(policy)) for plan, _ in plans):
        return None
    found = monitor(policy, plans, answers)
    if found is None or policy.certification is None or not found.expired:
        return None
    started = _started(policy, policy.certification, plans, answers, found.delta)
    missing = sum(draw.unanswered for draw, missing_wrong in started if missing_wrong)
    counted = f" ({missing:,} without an answer count as wrong: answer them, if they are right)" if missing else ""
    return (
        f"blind audits ({found.batches}) say that more than {1 - found.precision:.1%} of the new labels that policy "
        f"{policy.version} would accept are wrong{counted}; review more and certify again"
    )


def withdrawn(policy: Policy, plans: Plans, answers: Answers) -> str | None:
    """Say that people have changed their minds on the labels that a policy rests on, so far that these certify nothing.

    Verdicts may be corrected after a test, and a later test need not come. So the test of each certificate is taken
    again, by what is said of the sample now and by all else as it was; and where top-up samples extend it, so is their
    bound. The first policies do not say what else there was: where a group of theirs has more wrong labels at or above
    its threshold now than its certificate says, or fewer correct ones, the binomial test is taken at its level.
    """
    if policy.certification is None or not (kept := rests_on(policy.certification, plans)):
        return None
    tasks = distinct(pa.concat_tables([table for _, table in kept]), ["label_id"])
    tasks = tasks.filter(pc.equal(tasks["purpose"], "certify"))
    wrong = (answers.wrong_of(tasks["label_id"]) != CORRECT) & (answers.wrong_of(tasks["label_id"]) != NO_ANSWER)
    scores = numbers(tasks["p_correct"], np.float64)
    for group in policy.groups:
        before = group.certificate
        if group.p_correct is None or before is None:
            continue
        if before.test == "any time" or before.basis is not None:
            if not _still_passes(group, before, policy.certification, kept, answers):
                return (
                    f"verdicts that policy {policy.version} rests on were changed since ({group.name}), and no longer "
                    "certify it; use `vouch certify` again"
                )
            continue
        inside = numbers(pc.is_in(tasks["class_name"], value_set=pa.array(group.classes)), np.bool_)
        errors = int((inside & wrong & (scores >= group.p_correct)).sum())
        reviewed = before.reviewed
        if policy.certification.gate == "delivered":
            # Labels below the threshold that people kept then and reject now are not delivered.
            reviewed = min(reviewed, errors + int((inside & (answers.wrong_of(tasks["label_id"]) == CORRECT)).sum()))
        changed = errors > before.errors or reviewed - errors < before.reviewed - before.errors
        if changed and float(binomial_p(errors, reviewed, before.limit)) > before.delta:
            return (
                f"verdicts that policy {policy.version} rests on were changed since ({group.name}: {before.errors} of "
                f"{before.reviewed} wrong then, {errors} of {reviewed} now), and no longer certify it; use `vouch "
                "certify` again"
            )
    later = {one.population for one in policy.certification.covers[1:]}
    answered = answered_batches(policy, policy.certification, plans, answers)
    batches = tuple(
        batch for plan, batch, _ in answered if plan.population is not None and plan.population.population in later
    )
    growth = growth_of(policy, plans, policy.certification, batches)
    # Labels that were drawn from twice counted once, then as now; the first policies do not say how many.
    labels, times = policy.certification.extension_labels, policy.certification.extension_times or 1
    if later and not replace(growth, labels=labels, times=times).kept:
        return (
            f"verdicts on top-up samples that policy {policy.version} rests on were changed since, and no longer "
            f"extend it to new labels; use `vouch apply` for what {root_of(policy)} covers, and `vouch certify` again"
        )
    return None


def _still_passes(
    group: Group,
    before: GroupCertificate,
    guarantee: Certification,
    kept: Sequence[tuple[ReviewPlan, pa.Table]],
    answers: Answers,
) -> bool:
    """Whether the test of a group passes by what is said now of the labels that it saw."""
    declared = next((one for one in kept[-1][0].groups if one.name == group.name), None)
    tasks = in_order(kept)[: guarantee.answered] if before.basis is None else in_order(kept)
    tasks = tasks.filter(pc.is_in(tasks["class_name"], value_set=pa.array(group.classes)))
    if declared is None or group.p_correct is None:
        return False
    sample = Sample(numbers(tasks["p_correct"], np.float64), answers.wrong_of(tasks["label_id"]) != CORRECT)
    reviewers = guarantee.reviewers
    asked = Guarantee(guarantee.precision, guarantee.confidence, guarantee.gate, reviewers.assumed)
    if before.basis is None:
        evidence: Evidence = bets_of(sample, declared, asked, before.delta)
    else:
        thresholds = np.array([one for one in before.tested if one >= group.p_correct], np.float64)
        missed = ReviewerError(reviewers.accepted, reviewers.routed, reviewers.spent)
        evidence = exact_test(sample, thresholds, asked, before.basis, missed)
    step = certified_step(evidence)
    return step is not None and float(evidence.thresholds[step]) <= group.p_correct


def rests_on(guarantee: Certification, plans: Plans) -> list[tuple[ReviewPlan, pa.Table]]:
    """The plans whose verdicts a policy rests on; none where it was certified for another run."""
    calibrator = calibrator_fingerprint(Calibrator.from_dict(guarantee.calibrator))
    return [(plan, tasks) for plan, tasks in plans if plan.number in guarantee.plans and plan.calibrator == calibrator]


def delivered_on_accepted(
    policy: Policy, guarantee: Certification, plans: Plans, answers: Answers, delta: float
) -> float:
    """Bound the number of delivered labels on each accepted one from above, from the certification sample.

    With r routed and correct of n sampled labels of the classes that the policy accepts, N labels of these in the
    population and A of them accepted: (A + u N) / A, u the Clopper-Pearson upper bound of r/n at delta.
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


def drawn_labels(tasks: pa.Table) -> frozenset[str]:
    """Ids of the labels that an audit drew."""
    return frozenset(tasks.filter(pc.equal(tasks["purpose"], "audit"))["label_id"].to_pylist())


def _draw(policy: Policy, plan: ReviewPlan, tasks: pa.Table, answers: Answers, delta: float) -> AuditDraw:
    audit = plan.audit
    assert audit is not None
    rows = tasks.filter(pc.equal(tasks["purpose"], "audit"))
    if plan.population is not None:
        rows = rows.filter(pa.array(_accepted_rows(policy, rows)))
    codes, simulated = codes_for(policy.certification, answers, rows["label_id"])
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
    if plan.population is not None:
        sizes = np.array([audit.labels], np.int64)
    return AuditDraw(
        plan=plan.number,
        labels=audit.labels,
        audited=audited,
        missing=inclusion[~known],
        simulated=simulated,
        estimate=audited_precision(audit.mean_p_correct, sizes, audited, delta) if known.all() else None,
    )


def reference(labels: RunLabels, scores: Floats, chosen: Bools) -> dict[str, tuple[float, ...]]:
    """Take the percentiles 0, 1 ... 100 of every signal and of p(correct); a signal without a value is left out.

    chosen: (N,) labels that count.
    """
    found = {}
    for name, values in _columns(labels, scores, chosen):
        known = values[np.isfinite(values)]
        if len(known):
            found[name] = percentiles(known)
    return found


def percentiles(values: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """The percentiles 0, 1 ... 100 of some numbers, none of them NaN: those of numpy.percentile, which takes longer."""
    ordered = np.sort(values)
    places = np.linspace(0, 100, PERCENTILES) / 100 * (len(ordered) - 1)
    below = np.floor(places).astype(np.int64)
    low, high = (ordered[np.minimum(rows, len(ordered) - 1)].astype(np.float64) for rows in (below, below + 1))
    part, step = places - below, high - low
    return tuple(np.where(part < 0.5, low + step * part, high - step * (1 - part)).tolist())


def drift(
    before: Mapping[str, tuple[float, ...]], labels: RunLabels, scores: Floats, chosen: Bools
) -> dict[str, Drift]:
    """Compare every signal with its percentiles when the policy was certified, the largest distance first."""
    moved = dict.fromkeys(before)
    found = {name: one for name, one, _ in drifts(before, labels, scores, chosen)}
    # Of equal distances that which the certificate names first.
    return dict(sorted(((name, found[name]) for name in moved if name in found), key=lambda item: -item[1].distance))


def drifts(
    before: Mapping[str, tuple[float, ...]], labels: RunLabels, scores: Floats, chosen: Bools
) -> Iterator[tuple[str, Drift, Floats | NDArray[np.float32]]]:
    """Yield the drift of each signal that has percentiles, and its values now; some are in memory at a time."""
    for name, values in _columns(labels, scores, chosen):
        if name in before:
            percents = before[name]
            # Percentiles tie the distribution down to one percent, far below the distance that counts as drift.
            places = np.linspace(0, len(percents) - 1, _STEPS * (len(percents) - 1) + 1)
            known = np.interp(places, np.arange(len(percents)), percents)
            yield name, score_drift(known, values.astype(np.float64)), values


def audit_factor(drifts: Mapping[str, Drift]) -> float:
    """How many times more to audit: as the signal says that asks for most."""
    return max((one.audit_factor for one in drifts.values()), default=1.0)


def _columns(labels: RunLabels, scores: Floats, chosen: Bools) -> Iterator[tuple[str, Floats | NDArray[np.float32]]]:
    for name, values in labels.each_signal():
        yield name, values[chosen]
    yield P_CORRECT, scores[chosen]
