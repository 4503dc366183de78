"""Draws the labels that certify: a new sample with groups declared anew, or more of the one that is there."""

import numpy as np

from schemas.errors import UserError
from tasks.contract.costs import VERIFY_S, labels_within
from tasks.contract.declare import declare_groups, draw_counts, parts_of, reviews_to_start
from tasks.contract.draw import Draw, share_of
from tasks.contract.fit import Fit, fit_run
from tasks.contract.kept_calibrators import keep_calibrator
from tasks.contract.looking import look_by_drawing
from tasks.contract.looks import looks_so_far
from tasks.contract.rounds import Round, candidates_of, labels_of_round, last_round
from tasks.contract.run_reviews import RunReviews
from tasks.contract.stages import continues
from tasks.contract.task_rows import label_tasks
from tasks.statistics.bounds import labels_needed
from tasks.statistics.threshold_tests import delta_of_look


def draw_certification(reviews: RunReviews, seconds: float, fresh: bool) -> Draw:
    """Draw labels that certify: more of the sample that is there, or a new one with groups declared anew.

    Raises:
        UserError: Too few verdicts to fit, too little time, or nothing left to draw.
    """
    last = last_round(reviews.plans)
    if last is not None and not fresh and continues(reviews, last):
        return _extended(reviews, last, labels_within(seconds))
    return _declared(reviews, labels_within(seconds), 1 if last is None else last.number + 1)


def _declared(reviews: RunReviews, count: int, number: int) -> Draw:
    """Fit, declare groups and ladders, and draw the first sample of a round."""
    labels, promise = reviews.labels, reviews.promise
    fit = fit_run(labels, reviews.plans, reviews.answers, share_of(reviews), reviews.seed)
    candidates = candidates_of(reviews, fit.scores)
    if not candidates.certify_side.any():
        raise UserError("every image is kept for fitting, so no label can be certified; label more images first")
    drawing = look_by_drawing(reviews)
    look = 1 + looks_so_far(reviews.workspace, reviews.run, reviews.current.inputs) + (drawing is not None)
    classes = labels.class_index[fit.rows]
    groups = declare_groups(candidates, fit.labels, classes, promise, count, look)
    counts = parts_of(candidates, groups, promise.gate, count)
    drawn = draw_counts(candidates, groups, promise.gate, counts, reviews.seed, number)
    if not len(drawn.rows):
        needed = reviews_to_start(candidates, fit.labels, classes, promise, max(1, count), look)
        raise UserError(_too_little(count, needed))
    delta = delta_of_look(1 - promise.confidence, look) / len(groups)
    least = labels_needed(0, 1 - promise.precision, delta)
    words = [
        f"{len(drawn.rows):,} of {int(candidates.certify_side.sum()):,} labels that may be accepted, drawn at random, "
        f"to certify {promise.precision:.4g} of the {promise.gate} labels at confidence {promise.confidence:.4g}",
        f"certified on their own: {', '.join(group.name for group in groups)}",
    ]
    if len(drawn.rows) == candidates.certify_side.sum() > 2 * least * len(groups):
        words.append(
            "that is every label there is, so none would be accepted unseen: fewer do, see `vouch simulate`; ask for "
            "them by --stage certify --fresh with less --minutes, before the first is answered"
        )
    if len(drawn.rows) < least * len(groups):
        words.append(
            f"even without an error a group needs {least:,} reviewed labels: ask for more by --stage certify --fresh "
            "with more --minutes, before the first is answered"
        )
    return Draw(
        tables=(label_tasks(labels, drawn.rows, "certify", fit.scores, reviews.answers, drawn.inclusion),),
        words=(*words, *_of_fit(fit)),
        fit_share=share_of(reviews),
        scores=fit.scores,
        calibrator=keep_calibrator(reviews.workspace, reviews.run, fit),
        groups=groups,
        round=number,
        look=drawing,
    )


def _extended(reviews: RunReviews, last: Round, count: int) -> Draw:
    """Draw the next labels of the random order that a round began with."""
    plan, labels = last.plan, reviews.labels
    candidates = labels_of_round(reviews, last).candidates
    before = last.counts()
    counts = [had + part for had, part in zip(before, parts_of(candidates, plan.groups, plan.gate, count), strict=True)]
    drawn = draw_counts(candidates, plan.groups, plan.gate, counts, plan.seed, plan.round)
    new = ~np.isin(drawn.rows, labels.places(last.certify["label_id"].to_pylist()))
    if not new.any():
        raise UserError(
            "every label that could certify has been drawn; ask for a lower routing.precision, or review more to fit "
            "(--stage first) and draw anew (--stage certify --fresh)"
        )
    tasks = label_tasks(labels, drawn.rows[new], "certify", candidates.scores, reviews.answers, drawn.inclusion[new])
    return Draw(
        tables=(tasks,),
        words=(
            f"{int(new.sum()):,} labels more for the certification sample of {sum(before):,}, next in the same random "
            "order; certifying again is another look, with a part of the confidence that is left",
        ),
        fit_share=share_of(reviews),
        scores=candidates.scores,
        calibrator=plan.calibrator,
        groups=plan.groups,
        round=plan.round,
        look=look_by_drawing(reviews),
    )


def _too_little(count: int, needed: int | None) -> str:
    if needed is None:
        return (
            "no number of reviews is likely to certify this precision: too many labels with the best scores are wrong; "
            "ask for a lower routing.precision, or review more to fit (--stage first)"
        )
    return (
        f"{count:,} reviews are too few to certify anything; about {needed:,} may do: "
        f"vouch plan-reviews CAMPAIGN --minutes {np.ceil(needed * VERIFY_S / 60):.0f}"
    )


def _of_fit(fit: Fit) -> list[str]:
    found = fit.fitted
    return [
        f"the calibrator was fitted to {found.labels:,} verdicts: held-out Brier score {found.brier:.4f}, of the "
        f"constant share of correct ones {found.brier_of_rate:.4f}"
    ]
