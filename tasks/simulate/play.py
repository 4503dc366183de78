"""Plays one campaign of reviews on labels whose right answers are known, by the functions that certify real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from schemas.reviews import GroupPlan
from tasks.certify.data import Candidates, Promise, declare_groups, draw_groups
from tasks.certify.draw import labels_to_fit
from tasks.certify.fit import Fit, fit_rows
from tasks.certify.judge import Reviewed, judge
from tasks.evaluate.contract import is_kept, true_precision
from tasks.labels.arrays import SIGNALS
from tasks.reviews.plans import VERIFY_S
from tasks.simulate.answers import CORRECT
from tasks.simulate.board import Board, seconds_of
from tasks.simulate.figures import Draw
from tasks.simulate.reviewer import chances
from tasks.statistics.bounds import TRUSTED, Bools, Floats, Ints, ReviewerError, reviewer_error
from tasks.statistics.sampling import certification_sample, first_sample, fit_share
from tasks.statistics.threshold_tests import Sample, accepted_counts, delta_of_look, gate_a, gate_b, ladder

NAIVE: Final = 1_000_000
"""Number of the naive rule's own draw."""
_SCORE: Final = SIGNALS.index("detector_score")


def play(board: Board, promises: Sequence[Promise], reviews: int, seed: int) -> list[Draw]:
    """Play one campaign for each promise; the split, the first sample and the calibrator are the same for all.

    Args:
        board: The labels.
        promises: What is to be certified.
        reviews: Labels that people look at, those for fitting included.
        seed: Seed of the split, of every draw and of the reviewer's errors.

    Returns:
        A result for each promise.
    """
    start = _begin(board, reviews, seed)
    return [_go_on(start, promise, reviews) for promise in promises]


def reviews_to_fit(labels: int, reviews: int) -> int:
    """How many of so many reviews are for fitting: as many as `vouch plan-reviews` asks for first, at most half."""
    return labels_to_fit(labels, reviews // 2)


@dataclass(frozen=True)
class _Start:
    """A board after its first sample was reviewed."""

    board: Board
    said: NDArray[np.int8]
    """(N,) what the reviewer says, or would say."""
    candidates: Candidates
    first: Ints
    """Rows of the first sample."""
    fit: Fit | None
    """None where they were too few to fit."""
    seed: int

    @property
    def wrong(self) -> Bools:
        """(N,) labels that the reviewer calls wrong, or would."""
        return np.asarray(self.said != CORRECT)

    @property
    def side(self) -> Bools:
        """(N,) labels that the promise is about."""
        return self.candidates.certify_side


def _begin(board: Board, reviews: int, seed: int) -> _Start:
    labels, said = board.labels, board.said(seed)
    count = reviews_to_fit(labels.count, reviews)
    fitting = labels.fit_side(fit_share(labels.count, count), seed)
    rows = np.flatnonzero(fitting)
    first = first_sample(labels.signals[rows, _SCORE].astype(np.float64), count, seed)
    # In the order of the labels, as verdicts of a campaign are fitted to.
    order = np.argsort(rows[first.rows])
    rows, inclusion = rows[first.rows][order], first.inclusion[order]
    try:
        fit = fit_rows(labels, rows, said[rows] != CORRECT, 1 / inclusion, seed)
    except UserError:
        fit = None
    scores = fit.scores if fit is not None else np.full(labels.count, np.nan)
    candidates = Candidates(scores, labels.class_index, labels.class_names, ~fitting)
    return _Start(board, said, candidates, rows, fit, seed)


def _go_on(start: _Start, promise: Promise, reviews: int) -> Draw:
    """Declare the groups, review the certification sample, certify, and look at the truth."""
    labels, fit, candidates = start.board.labels, start.fit, start.candidates
    left = reviews - len(start.first)
    accepted, rows = np.zeros(labels.count, np.bool_), np.zeros(0, np.int64)
    groups: tuple[GroupPlan, ...] = ()
    if fit is not None:
        groups = declare_groups(candidates, fit.labels, labels.class_index[fit.rows], promise, left)
        rows = draw_groups(candidates, groups, promise.gate, left, start.seed, 1).rows
        names = np.array(labels.class_names)[labels.class_index[rows]]
        reviewed = Reviewed(candidates.scores[rows], start.wrong[rows], tuple(names.tolist()))
        delta = delta_of_look(1 - promise.confidence, 1)
        bounds = _reviewers(start, promise, delta)
        for one in judge(reviewed, groups, candidates, promise, delta, bounds):
            if one.certificate.threshold is not None:
                kept = candidates.of(one.plan.model_copy(update={"classes": one.classes}))
                accepted |= kept & (candidates.scores >= one.certificate.threshold)
    naive = _naive(start, promise, left)
    found = true_precision(accepted, start.board.correct, start.side)
    asked = np.unique(np.concatenate([start.first, rows]))
    return Draw(
        reviewed=len(asked),
        review_seconds=float(seconds_of(start.said[asked]).sum()) + start.board.plants * VERIFY_S,
        automation=float(accepted.mean()),
        accepted_precision=found.accepted_precision,
        delivered_precision=found.delivered_precision,
        broken=_broken(start, accepted, groups, promise),
        seconds_per_box=_seconds_per_box(start, accepted, asked),
        oracle=oracle(candidates.scores[start.side], ~start.board.correct[start.side], promise),
        naive=float(naive.mean()),
        naive_broken=_broken(start, naive, groups, promise),
    )


def _reviewers(start: _Start, promise: Promise, delta: float) -> ReviewerError:
    """Bound what the reviewer misses by known-wrong plants, as many as the board has."""
    planted = start.board.plants
    if not planted:
        return TRUSTED
    names = [f"plant-{number}" for number in range(planted)]
    missed = chances(names, start.seed) < start.board.errors.missed
    # Gate "delivered" plants half of them among the labels that people get in any case, as `vouch plan-reviews` does.
    routed = planted // 2 if promise.gate == "delivered" else 0
    first, rest = missed[: planted - routed], missed[planted - routed :]
    return reviewer_error(len(first), int(first.sum()), delta, routed, int(rest.sum()))


def oracle(scores: Floats, wrong: Bools, promise: Promise) -> float:
    """Most that any threshold may accept, as a share of these labels, for one who knows which are wrong.

    Args:
        scores: (n,) p(correct), NaN: never accepted.
        wrong: (n,) the truth.
        promise: What is to hold.
    """
    steps = np.unique(scores[np.isfinite(scores)])[::-1]
    accepted = accepted_counts(scores, steps)
    errors = accepted_counts(scores[wrong], steps)
    whole = accepted if promise.gate == "accepted" else errors + int((~wrong).sum())
    good = np.flatnonzero(errors <= (1 - promise.precision) * whole + 1e-9)
    return float(accepted[good[-1]] / len(scores)) if len(good) else 0.0


def _naive(start: _Start, promise: Promise, reviews: int) -> Bools:
    """What the loosest threshold accepts at which as many reviewed labels, drawn uniformly, look good enough."""
    scores = start.candidates.scores
    rows = certification_sample(start.side, reviews, start.seed, NAIVE).rows
    sample, steps = Sample(scores[rows], start.wrong[rows]), ladder(scores[start.side])
    if promise.gate == "accepted":
        found = gate_a(sample, steps, np.ones(len(steps), np.int64), promise.precision, 0.5)
    else:
        found = gate_b(sample, steps, promise.precision, 0.5)
    good = np.flatnonzero((found.reviewed > 0) & (found.errors <= (1 - promise.precision) * found.reviewed))
    least = float(steps[good[-1]]) if len(good) else np.inf
    return np.asarray(start.side & (scores >= least))


def _broken(start: _Start, accepted: Bools, groups: Sequence[GroupPlan], promise: Promise) -> bool:
    """Whether the promise of any group is broken."""
    among = [start.candidates.of(group) for group in groups] or [start.side]
    found = [true_precision(accepted, start.board.correct, part) for part in among]
    return any(is_kept(one, promise.gate, promise.precision) is False for one in found)


def _seconds_per_box(start: _Start, accepted: Bools, asked: Ints) -> float | None:
    """Time of all reviews and of all labels that are not accepted, over delivered boxes."""
    seen = ~accepted
    boxes = int((accepted | start.board.boxes).sum())
    seen[asked] = True
    seconds = float(seconds_of(start.said[seen]).sum()) + start.board.plants * VERIFY_S
    return seconds / boxes if boxes else None
