"""Draws the labels to fit to, blind audits, and doubtful labels, within a time."""

from typing import Final

import numpy as np
import pyarrow.compute as pc

from schemas.errors import UserError
from schemas.reviews import AuditPlan, Stratum
from tasks.contract.audits import UNKNOWN_P
from tasks.contract.costs import VERIFY_S, labels_within
from tasks.contract.draw import Draw, share_of
from tasks.contract.drift import audit_factor, drift
from tasks.contract.queue import doubtful_rows, nothing_worth_asking
from tasks.contract.rounds import labels_of_round, last_round
from tasks.contract.run_labels import SIGNALS, RunLabels
from tasks.contract.run_reviews import RunReviews
from tasks.contract.stages import policy_of_run
from tasks.contract.task_rows import label_tasks
from tasks.statistics.bounds import Floats, Ints
from tasks.statistics.calibrator import Calibrator
from tasks.statistics.fit_calibrator import FEWEST_LABELS
from tasks.statistics.sampling import audit_sample, audit_strata, first_sample, fit_share

MOST_TO_FIT: Final = 400
"""Reviewed labels above which a calibrator of these signals gains little."""
FEW_TO_FIT: Final = 50
PART_TO_FIT: Final = 10
"""Labels of a run for each that is reviewed to fit, where they are few: what is kept for fitting is not automated."""
AUDITED: Final = 100
"""Labels of a blind audit while nothing drifts."""


def labels_to_fit(labels: int, affordable: int) -> int:
    """How many labels to fit to, of a run with so many and with time for so many."""
    return min(MOST_TO_FIT, max(FEW_TO_FIT, labels // PART_TO_FIT), affordable)


def draw_first(reviews: RunReviews, seconds: float) -> Draw:
    """Draw labels to fit to: half over the range of the detector score, half uniformly, on the fit side.

    The first time, the share of images on the fit side is fixed for good. Later more labels are drawn from what is left
    there.

    Raises:
        UserError: The time is too short, or the fit side has no label left.
    """
    labels = reviews.labels
    wanted = labels_to_fit(labels.count, labels_within(seconds))
    if wanted < FEWEST_LABELS:
        raise UserError(
            f"a calibrator needs {FEWEST_LABELS} reviewed labels at least, "
            f"about {np.ceil(FEWEST_LABELS * VERIFY_S / 60):.0f} minutes; raise --minutes"
        )
    share = fit_share(labels.count, wanted) if reviews.fit_share is None else reviews.fit_share
    asked = [tasks.filter(pc.equal(tasks["purpose"], "fit"))["label_id"].to_pylist() for _, tasks in reviews.plans]
    drawn_before = labels.places([label for part in asked for label in part])
    free = labels.fit_side(share, reviews.seed)
    free[drawn_before[drawn_before >= 0]] = False
    among = np.flatnonzero(free)
    if not len(among):
        raise UserError("every label kept for fitting has been drawn; use vouch plan-reviews CAMPAIGN --stage certify")
    scores = labels.signals[among, SIGNALS.index("detector_score")].astype(np.float64)
    drawn = first_sample(scores, wanted, reviews.seed + len(reviews.plans))
    rows = among[drawn.rows]
    p = labels.p_correct
    return Draw(
        tables=(label_tasks(labels, rows, "fit", p, reviews.answers, drawn.inclusion),),
        words=(
            f"{len(rows):,} labels to fit the calibrator to, half spread over the detector's scores, half at random: "
            "they teach how far each signal is to be trusted, and certify nothing",
            f"{share:.1%} of the images are kept for this; their labels are never accepted without a person",
        ),
        fit_share=share,
        scores=p,
    )


def draw_audit(reviews: RunReviews, seconds: float, *, alone: bool) -> Draw:
    """Draw a blind audit of the labels that the policy in force accepted.

    `AUDITED` labels, or as many times more as drift of the signals asks for, within the time, and within half of it
    unless the audit stands alone. Drawn from all accepted labels each time, so that each audit is a sample of its own;
    labels that were answered before need no answer again.

    Raises:
        UserError: Nothing is accepted.
    """
    labels, policy = reviews.labels, policy_of_run(reviews)
    accepted = np.flatnonzero(labels.accepted)
    if policy is None or not len(accepted):
        raise UserError("there is nothing to audit: no label of this run is accepted; see `vouch status`")
    factor, words = 1.0, []
    if policy.certification is not None:
        moved = drift(policy.certification.reference, labels, labels.p_correct, ~reviews.fit_side())
        factor = audit_factor(moved)
        names = [name for name, one in moved.items() if one.audit_factor > 1]
        if names:
            words.append(f"signals have drifted since certification ({', '.join(names)}), so more is audited")
    most = labels_within(seconds if alone else seconds / 2)
    count = min(int(AUDITED * factor), max(1, most))
    classes = labels.class_index[accepted]
    p = np.where(np.isnan(labels.p_correct[accepted]), UNKNOWN_P, labels.p_correct[accepted])
    strata = audit_strata(classes, p, count)
    drawn = audit_sample(classes, p, count, reviews.seed, len(reviews.plans))
    tasks = label_tasks(
        labels,
        accepted[drawn.rows],
        "audit",
        labels.p_correct,
        reviews.answers,
        drawn.inclusion,
        strata[drawn.rows],
    )
    return Draw(
        tables=(tasks,),
        words=(
            f"{len(drawn.rows):,} of {len(accepted):,} accepted labels as a blind audit of policy {policy.version}: "
            "they show whether its promise still holds",
            *words,
        ),
        fit_share=share_of(reviews),
        scores=labels.p_correct,
        audit=AuditPlan(
            policy=policy.version,
            labels=len(accepted),
            mean_p_correct=float(p.mean()),
            strata=tuple(
                _stratum(labels, classes[strata == stratum], p[strata == stratum], int(taken))
                for stratum, taken in enumerate(np.bincount(strata[drawn.rows], minlength=int(strata.max()) + 1))
            ),
        ),
    )


def draw_queue(reviews: RunReviews, seconds: float) -> Draw:
    """Choose the labels that wait for people and are worth most a second."""
    scores = _known_scores(reviews)
    rows, waiting = doubtful_rows(reviews, scores, labels_within(seconds))
    nothing = nothing_worth_asking(waiting, reviews.campaign.export.undecided)
    words = f"{len(rows):,} of {waiting:,} labels that wait for people, those first that mend most a second"
    return Draw(
        tables=(label_tasks(reviews.labels, rows, "doubtful", scores, reviews.answers),),
        words=(words if len(rows) else nothing,),
        fit_share=share_of(reviews),
        scores=scores,
        nothing=nothing,
    )


def _known_scores(reviews: RunReviews) -> Floats:
    """p(correct) as routed, or by the policy in force for what has none, else by the last certification round."""
    labels = reviews.labels
    if not np.isnan(labels.p_correct).all():
        return labels.p_correct
    policy = policy_of_run(reviews)
    if policy is not None and policy.certification is not None:
        calibrator = Calibrator.from_dict(policy.certification.calibrator)
        return calibrator.probabilities(labels.signals, labels.class_index, labels.class_names)
    last = last_round(reviews.plans)
    return labels.p_correct if last is None else labels_of_round(reviews, last).candidates.scores


def _stratum(labels: RunLabels, classes: Ints, p: Floats, drawn: int) -> Stratum:
    members = np.unique(classes)
    name = labels.class_names[int(members[0])] if len(members) == 1 else f"{len(members)} classes"
    return Stratum(name=f"{name}, p {p.min():.3f} to {p.max():.3f}", size=len(p), drawn=drawn)
