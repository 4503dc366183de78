"""Extends a certificate to labels that come later: draws a top-up sample of them, and judges what was answered."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Certification, Certified, Covered, Policy
from vouch_labels.schemas.reviews import AuditPlan, Stratum
from vouch_labels.schemas.text import pct, plural
from vouch_labels.tasks.certify.active import usable_policy
from vouch_labels.tasks.certify.data import RunReviews
from vouch_labels.tasks.certify.draw import Draw
from vouch_labels.tasks.certify.monitor import (
    UNKNOWN_P,
    accepting_classes,
    answered_batches,
    audit_factor,
    codes_for,
    contradicted,
    drawn_from,
    drawn_labels,
    drift,
    growth_delta,
    growth_of,
    outside_of,
    rests_on,
    root_of,
    would_accept,
)
from vouch_labels.tasks.certify.questions import label_tasks
from vouch_labels.tasks.certify.rounds import last_round, policy_of_run
from vouch_labels.tasks.policy import (
    LabelNumbers,
    accepts,
    among,
    covered_labels,
    keep_certified,
    keep_population,
    label_numbers,
    read_population,
)
from vouch_labels.tasks.reviews.plans import Plans, labels_within
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers
from vouch_labels.tasks.statistics.monitoring import Batch, Growth, reviews_to_extend
from vouch_labels.tasks.statistics.sampling import AUDIT, certification_sample
from vouch_labels.tasks.store.store import Store

_SAMPLE: Final = "vouch plan-reviews CAMPAIGN --stage certify"

AUDITED: Final = 100
"""Least labels of a blind audit, so that a fall shows, unless that is more than one of `AUDIT_PART` new ones."""
AUDIT_PART: Final = 5


def draw_audit(reviews: RunReviews, seconds: float, *, alone: bool) -> Draw:
    """Draw a blind audit of new labels: a top-up sample that may extend the active policy's certificate to them.

    New are the labels that the policy would accept, does not cover, and nobody has looked at; under gate "delivered"
    all labels of its classes that it does not cover, since those that people keep count. A label that an earlier audit
    was drawn from is new again where none else is. As many are drawn as may
    well extend the certificate, at least `AUDITED` or one of `AUDIT_PART`, and as many times more as drift of the
    signals asks for; all within the time, and within half of it unless the audit stands alone.

    Raises:
        UserError: There is nothing new, where the audit stands alone, or the active policy cannot be used.
    """
    usable_policy(reviews.campaign, reviews.workspace, reviews.current.inputs)
    labels, policy = reviews.labels, policy_of_run(reviews)
    found = policy.certification if policy is not None else None
    if policy is None or found is None or not accepts(policy):
        raise UserError("there is nothing to audit: no certified policy routes this run; see `vouch status`")
    if not found.covers:
        raise UserError(
            f"policy {policy.version} was certified by an earlier version of Vouch, which did not keep which labels it "
            "covers, so no label is known to be new; draw a new sample: vouch plan-reviews CAMPAIGN --stage certify"
        )
    if not rests_on(found, reviews.plans):
        if alone:
            raise UserError(
                f"policy {policy.version} was certified for another run and can be extended there alone; to certify "
                "the labels of this one: vouch plan-reviews CAMPAIGN --stage certify"
            )
        return Draw(tables=(), notes=(), scores=labels.p_correct)
    would = would_accept(policy, labels)
    outside = outside_of(reviews, policy) & reviews.unknown
    waiting = outside & (would if found.gate == "accepted" else accepting_classes(policy, labels))
    root = root_of(policy)
    pending = among(reviews.numbers, drawn_from(reviews.workspace, reviews.plans, root))
    frame = waiting & ~pending if (waiting & ~pending).any() else waiting
    if not frame.any():
        if alone:
            raise UserError(
                f"policy {policy.version} covers every label that it accepts, so there is nothing new to audit"
            )
        return Draw(tables=(), notes=(), scores=labels.p_correct)
    moved = drift(found.reference, labels, labels.p_correct, frame)
    factor = audit_factor(moved)
    names = [name for name, one in moved.items() if one.audit_factor > 1]
    notes = [f"signals have drifted since certification ({', '.join(names)}), so more is audited"] if names else []
    accepted = frame & would
    p = np.where(np.isnan(labels.p_correct), UNKNOWN_P, labels.p_correct)
    needed = reviews_to_extend(
        _audited_batches(policy, reviews.plans, reviews.answers),
        int(frame.sum()),
        float((1 - p[accepted]).sum() / frame.sum()),
        found.precision,
        growth_delta(found),
        found.reviewers.assumed,
        float((1 - p[frame & ~would]).sum() / frame.sum()),
        all_labels=len(np.union1d(_drawn_before(reviews, policy), reviews.numbers[frame])),
    )
    count = max(needed or AUDITED, min(AUDITED, -(-int(frame.sum()) // AUDIT_PART)))
    count = min(int(count * factor), max(1, labels_within(seconds if alone else seconds / 2)))
    order = labels.draw_order
    drawn = certification_sample(frame[order], count, reviews.seed, len(reviews.plans), AUDIT)
    rows = order[drawn.rows]
    strata = np.zeros(len(rows), np.int64)
    tasks = label_tasks(labels, rows, "audit", labels.p_correct, reviews.answers, drawn.inclusion, strata)
    return Draw(
        tables=(tasks,),
        notes=(
            f"{len(rows):,} of {plural(int(frame.sum()), 'new label')} as a blind audit: `vouch certify` extends "
            f"policy {policy.version} to them if it may",
            *notes,
        ),
        scores=labels.p_correct,
        population=reviews.covered(frame),
        audit=AuditPlan(
            policy=root,
            labels=int(accepted.sum()),
            mean_p_correct=float(p[accepted].mean()) if accepted.any() else 0.0,
            strata=(Stratum(name="new labels", size=int(frame.sum()), drawn=len(rows)),),
        ),
    )


@dataclass(frozen=True)
class Extension:
    """Whether answered audits extend a policy's certificate to the new labels that they were drawn from."""

    covers: tuple[Covered, ...]
    """What is new."""
    reviewed: int
    wrong: int
    """Of those reviewed, wrong and accepted; those without an answer count so."""
    unanswered: int
    growth: Growth
    """All audits since the certificate."""
    worse: str
    """Why new labels are worse than certified, by the bets of all audits; empty while they do not seem so."""

    @property
    def passes(self) -> bool:
        """Whether it does."""
        return self.growth.kept and not self.worse


def extension(workspace: Store, policy: Policy, plans: Plans, answers: Answers) -> Extension | None:
    """Test by all answered audits whether the guarantee covers the labels that they were drawn from; None: no news.

    Audits of which nothing is answered yet do not count; labels without an answer in one that was started count as
    wrong. Verdicts of a simulated reviewer say nothing of a policy that people certified, nor the other way round.
    """
    guarantee = policy.certification
    if guarantee is None or not guarantee.covers or not rests_on(guarantee, plans):
        return None
    known = {one.population for one in guarantee.covers}
    new, wrong, reviewed, unanswered = [], 0, 0, 0
    answered = answered_batches(policy, guarantee, plans, answers)
    for plan, batch, missing in answered:
        assert plan.population is not None
        if plan.population.population not in known:
            new.append(plan.population.model_copy(update={"plan": plan.number}))
            reviewed += batch.reviewed
            wrong += batch.wrong
            unanswered += missing
    if not new:
        return None
    growth = growth_of(policy, plans, guarantee, tuple(batch for _, batch, _ in answered))
    # Labels that were drawn from again, as nothing newer was there, are no more labels for that.
    populations = [plan.population.population for plan, _, _ in answered if plan.population]
    each, times = np.unique(
        np.concatenate([read_population(workspace, name) for name in populations]), return_counts=True
    )
    # Those that are known to be right, and those that the samples count as seen.
    counts = (answers.wrong_of(answers.ids) == CORRECT) & (answers.simulated <= guarantee.simulated)
    right = answers.ids.filter(pa.array(counts))
    drawn = {plan.number for plan, _, _ in answered}
    sampled = [label for plan, tasks in plans if plan.number in drawn for label in drawn_labels(tasks)]
    seen = among(each, np.unique(label_numbers(pa.concat_arrays([right, pa.array(sampled, pa.string())]))))
    growth = replace(growth, labels=len(each), times=int(times[~seen].min(initial=len(populations))))
    return Extension(tuple(new), reviewed, wrong, unanswered, growth, contradicted(policy, plans, answers) or "")


def _drawn_before(reviews: RunReviews, policy: Policy) -> LabelNumbers:
    """Labels of the batches that answered audits of a policy were drawn from, each once."""
    assert policy.certification is not None
    answered = answered_batches(policy, policy.certification, reviews.plans, reviews.answers)
    names = [plan.population.population for plan, _, _ in answered if plan.population]
    found = [read_population(reviews.workspace, name) for name in names]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def _audited_batches(policy: Policy, plans: Plans, answers: Answers) -> tuple[Batch, ...]:
    """The batches of new labels that answered audits of a policy were drawn from, in their order."""
    guarantee = policy.certification
    return () if guarantee is None else tuple(one for _, one, _ in answered_batches(policy, guarantee, plans, answers))


def newer_sample(reviews: RunReviews, policy: Policy) -> bool:
    """Whether a validation sample was drawn, or more of one, since a policy was certified."""
    last = last_round(reviews.plans)
    guarantee = policy.certification
    return last is not None and guarantee is not None and last.plan.number > max(guarantee.plans)


def extend(reviews: RunReviews, active: Policy, news: Extension) -> Certified:
    """Extend a policy to new labels, if their audits allow it."""
    guarantee = active.certification
    assert guarantee is not None
    policy = None
    if news.passes:
        covers = (*guarantee.covers, *_added(reviews, active, news))
        certification = guarantee.model_copy(
            update={
                "covers": covers,
                "extends": root_of(active),
                "extension_labels": news.growth.labels,
                "extension_times": news.growth.times,
                "created": news.covers[-1].created,
            }
        )
        policy = keep_certified(reviews.workspace, active.groups, certification)
    held = policy or active
    outside = outside_of(reviews, held)
    seen = f"top-up samples: {news.wrong:,} of {news.reviewed:,} reviewed new labels are accepted and wrong"
    if news.unanswered:
        seen += f" ({news.unanswered:,} without an answer among them)"
    at_most = f"at most {pct(news.growth.bound)} are wrong, {pct(1 - guarantee.precision)} may be"
    remarks = [f"{seen}; of all new labels since the certificate {at_most}"]
    if policy is not None:
        labels = sum(one.labels for one in covers[len(guarantee.covers) :])
        remarks.append(f"so the certificate extends to {plural(labels, 'new label')}")
    elif news.worse:
        remarks.append(f"{news.worse}; new labels stay outside: draw a new sample of all labels: {_SAMPLE}")
    else:
        remarks.append("so new labels stay outside until more of them are reviewed: use `vouch plan-reviews`")
    return Certified(
        run=reviews.run,
        workspace=reviews.workspace.uri,
        version=policy.version if policy else None,
        in_force=policy is not None and policy.version == reviews.current.policy,
        precision=guarantee.precision,
        confidence=guarantee.confidence,
        gate=guarantee.gate,
        look=guarantee.look,
        delta=news.growth.delta,
        groups=(),
        classes=(),
        labels=reviews.labels.count,
        covers=held.certification.covers if held.certification else (),
        outside=int((outside & reviews.unknown).sum()),
        accepted=int((would_accept(held, reviews.labels) & ~outside).sum()),
        reviewers=guarantee.reviewers,
        simulated=guarantee.simulated,
        more_reviews=None,
        remarks=tuple(remarks),
    )


def _added(reviews: RunReviews, active: Policy, news: Extension) -> Iterator[Covered]:
    """What audits add to what a policy covers, each with the labels and images that it is the first to cover."""
    tasks = {plan.number: tasks for plan, tasks in reviews.plans}
    left = outside_of(reviews, active)
    for one in news.covers:
        audit = tasks[one.plan].filter(pc.equal(tasks[one.plan]["purpose"], "audit"))
        added = covered_by(reviews, one, one.plan, audit, active.certification)
        inside = left & among(reviews.numbers, covered_labels(reviews.workspace, added))
        left &= ~inside
        images = int(np.count_nonzero(np.bincount(reviews.labels.image_index[inside])))
        yield added.model_copy(update={"labels": int(inside.sum()), "images": images})


def covered_by(
    reviews: RunReviews, population: Covered, plan: int, tasks: pa.Table, guarantee: Certification | None = None
) -> Covered:
    """What a sample's answers cover: all that it was drawn from, less its labels without one.

    Those count as wrong, and the tests take wrong labels of the sample to be corrected, so they have to wait.
    """
    codes, _ = codes_for(guarantee, reviews.answers, tasks["label_id"])
    missing = tasks["label_id"].filter(pa.array(codes == NO_ANSWER))
    without = keep_population(reviews.workspace, missing) if len(missing) else None
    return population.model_copy(update={"plan": plan, "without": without, "labels": population.labels - len(missing)})
