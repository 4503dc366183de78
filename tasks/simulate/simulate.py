"""Simulates campaigns of reviews on a run with ground truth: how many reviews certify how much.

A campaign is played by the functions that certify real ones, on labels whose right answers are known; figures of many
draws are added up. One whole round can be played on the workspace itself: plan, answer, certify, apply, compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign, Gate
from vouch_labels.schemas.errors import NotCertifiedError, UserError
from vouch_labels.schemas.evaluation import ContractTruth, PlanningAnswer, SimulatedRow, Simulation, Spread
from vouch_labels.schemas.policy import Certified
from vouch_labels.schemas.records import ApplySummary
from vouch_labels.schemas.reviews import GroupPlan, Planned
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.data import Candidates, Guarantee, declare_groups, draw_groups
from vouch_labels.tasks.certify.draw import labels_to_fit
from vouch_labels.tasks.certify.fit import Fit, fit_rows
from vouch_labels.tasks.certify.judge import Reviewed, SampleTest
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.evaluate.evaluate import contract_truth, is_kept, true_precision
from vouch_labels.tasks.evaluate.run_truth import CORRECT, NOT_AN_OBJECT, RunTruth, truth_of_campaign
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import read_coverage, read_policy
from vouch_labels.tasks.reviews.plans import VERIFY_S, read_plans
from vouch_labels.tasks.reviews.resolve import resolve
from vouch_labels.tasks.reviews.verdicts import present_verdicts, write_verdicts
from vouch_labels.tasks.shard.numbers import SIGNALS
from vouch_labels.tasks.simulate.reviewer import SECONDS, Errors, Question, answer, called, chances
from vouch_labels.tasks.statistics.betting import PART, tested_any_time
from vouch_labels.tasks.statistics.bounds import (
    TRUSTED,
    Bools,
    Floats,
    Ints,
    ReviewerError,
    lower_bound,
    reviewer_error,
    upper_bound,
)
from vouch_labels.tasks.statistics.sampling import certification_sample, first_sample
from vouch_labels.tasks.statistics.threshold_tests import (
    Sample,
    accepted_counts,
    binomial_gate_b,
    delta_of_test,
    gate_a,
    threshold_grid,
)
from vouch_labels.tasks.store.open import open_store

NAIVE: Final = 1_000_000
"""Number of the naive rule's own draw."""
_SCORE: Final = SIGNALS.index("detector_score")

_INTERVAL: Final = 0.05


def simulate(
    labels: RunLabels,
    truth: RunTruth,
    question: Question,
    names: tuple[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Play every number of reviews so often, and hold each result against the truth.

    Draws differ in what is drawn for review and in the reviewer's errors; the labels are the same. So the
    figures say what would come of such reviews on this run; another batch of images has other labels. Labels are never
    drawn twice to make a larger batch: a number of reviews above what there is reviews all of it. names: the
    ground-truth file and the run, for the report; progress is called with draws played and draws in all.

    Raises:
        UserError: No label has truth.
    """
    played = board(labels, truth, question.errors, question.honeypots)
    if not played.labels.count:
        raise UserError(f"{names[0]}: none of the run's labels has truth to simulate a reviewer with")
    guarantees = [
        Guarantee(precision, question.confidence, question.gate, question.assumed) for precision in question.precisions
    ]
    results: dict[tuple[float, int], list[Draw]] = {}
    total = len(question.reviews) * question.draws
    for place, reviews in enumerate(question.reviews):
        for number in range(question.draws):
            for guarantee, draw in zip(guarantees, play(played, guarantees, reviews, number), strict=True):
                results.setdefault((guarantee.precision, reviews), []).append(draw)
            if progress is not None:
                progress(place * question.draws + number + 1, total)
    rows = tuple(row(precision, reviews, results[precision, reviews]) for precision, reviews in sorted(results))
    boxes = int(played.boxes.sum())
    return Simulation(
        truth=names[0],
        run=names[1],
        file=truth.file,
        images=int(truth.known.sum()),
        labelled=len(truth.known),
        labels=played.labels.count,
        correct=float(played.correct.mean()),
        without_truth=dict(truth.left_out),
        gate=question.gate,
        confidence=question.confidence,
        draws=question.draws,
        missed=question.errors.missed,
        honeypots=question.honeypots,
        assumed=0 if question.honeypots else question.assumed,
        seconds_per_box_by_hand=float(SECONDS[played.verdict].sum()) / boxes if boxes else None,
        rows=rows,
        answers=answers(rows, question.automate),
    )


@dataclass(frozen=True)
class Board:
    """N labels with their right answers."""

    labels: RunLabels
    verdict: NDArray[np.int8]
    """(N,) places in LABEL_VERDICTS."""
    errors: Errors
    honeypots: int = 0
    """Known-wrong labels that are mixed in to see what the reviewer misses."""

    @property
    def correct(self) -> Bools:
        """(N,) labels that are right."""
        return np.asarray(self.verdict == CORRECT)

    @property
    def boxes(self) -> Bools:
        """(N,) labels that are delivered when people look at them: right, or corrected."""
        return np.asarray(self.verdict != NOT_AN_OBJECT)

    def reviewed(self, seed: int) -> NDArray[np.int8]:
        """The verdicts of one draw's reviewer on every label, seen or not, (N,) places in LABEL_VERDICTS."""
        if not (self.errors.missed or self.errors.false_alarms):
            return self.verdict
        return called(self.verdict, chances(self.labels.label_ids.to_pylist(), seed), self.errors)


def oracle(scores: Floats, wrong: Bools, guarantee: Guarantee) -> float:
    """Most that any threshold may accept, as a share of these labels, for one who knows which are wrong."""
    steps = np.unique(scores[np.isfinite(scores)])[::-1]
    accepted = accepted_counts(scores, steps)
    errors = accepted_counts(scores[wrong], steps)
    whole = accepted if guarantee.gate == "accepted" else errors + int((~wrong).sum())
    good = np.flatnonzero(errors <= (1 - guarantee.precision) * whole + 1e-9)
    return float(accepted[good[-1]] / len(scores)) if len(good) else 0.0


class Draw(NamedTuple):
    """What one draw came to."""

    reviewed: int
    """Labels that were reviewed."""
    review_seconds: float
    automation: float
    """Share of all labels accepted."""
    accepted_precision: float | None
    """A, true, of what the guarantee is about; None without an accepted label."""
    delivered_precision: float | None
    broken: bool
    """Something was accepted, and the guarantee of a group is not kept."""
    seconds_per_box: float | None
    oracle: float
    naive: float
    naive_broken: bool


def play(board: Board, guarantees: Sequence[Guarantee], reviews: int, seed: int) -> list[Draw]:
    """Play one campaign for each guarantee; the first sample and the calibrator are the same for all.

    `reviews` includes the labels for fitting.
    """
    start = _begin(board, reviews, seed)
    return [_go_on(start, guarantee, reviews) for guarantee in guarantees]


def reviews_to_fit(labels: int, reviews: int) -> int:
    """How many of so many reviews are for fitting: as many as `vouch plan-reviews` asks for first, at most half."""
    return labels_to_fit(labels, reviews // 2)


def board(labels: RunLabels, truth: RunTruth, errors: Errors, honeypots: int = 0) -> Board:
    """Take the labels whose right answers are known."""
    return Board(only(labels, truth.counted), truth.verdict[truth.counted], errors, honeypots)


@dataclass(frozen=True)
class _Start:
    """A board after its first sample was reviewed."""

    board: Board
    verdicts: NDArray[np.int8]
    """(N,) the reviewer's, on labels not seen too."""
    candidates: Candidates
    first: Ints
    """Rows of the first sample."""
    fit: Fit | None
    """None where they were too few to fit."""
    seed: int

    @property
    def wrong(self) -> Bools:
        """(N,) labels that the reviewer calls wrong, seen or not."""
        return np.asarray(self.verdicts != CORRECT)

    @property
    def side(self) -> Bools:
        """(N,) labels that the guarantee covers."""
        return self.candidates.population

    def about(self, gate: Gate) -> Bools:
        """(N,) labels that the guarantee is about: of delivered labels also those that were known before."""
        return np.ones_like(self.side) if gate == "delivered" else self.side

    def accepted(self, accepted: Bools, asked: Ints) -> Bools:
        """(N,) accepted labels less those that the reviewer was asked about and called wrong, which are corrected."""
        left = accepted.copy()
        left[asked[self.wrong[asked]]] = False
        return left


def _begin(board: Board, reviews: int, seed: int) -> _Start:
    labels, verdicts = board.labels, board.reviewed(seed)
    count = reviews_to_fit(labels.count, reviews)
    first = first_sample(labels.signals[:, _SCORE].astype(np.float64), count, seed)
    # In the order of the labels, as verdicts of a campaign are fitted to.
    order = np.argsort(first.rows)
    rows, inclusion = first.rows[order], first.inclusion[order]
    try:
        fit = fit_rows(labels, rows, verdicts[rows] != CORRECT, 1 / inclusion, seed)
    except UserError:
        fit = None
    scores = fit.scores if fit is not None else np.full(labels.count, np.nan)
    population = np.ones(labels.count, np.bool_)
    population[rows] = False
    candidates = Candidates(scores, labels.class_index, labels.class_names, population, labels.draw_order)
    return _Start(board, verdicts, candidates, rows, fit, seed)


def _go_on(start: _Start, guarantee: Guarantee, reviews: int) -> Draw:
    """Declare the groups, review the certification sample, certify, and look at the truth."""
    labels, fit, candidates = start.board.labels, start.fit, start.candidates
    left = reviews - len(start.first)
    accepted, rows = np.zeros(labels.count, np.bool_), np.zeros(0, np.int64)
    groups: tuple[GroupPlan, ...] = ()
    if fit is not None:
        delta = delta_of_test(1 - guarantee.confidence, 1)
        if tested_any_time(left, int(candidates.population.sum()), start.board.honeypots):
            delta *= 1 - PART
        groups = declare_groups(candidates, fit.labels, labels.class_index[fit.rows], guarantee, left, delta)
        rows = draw_groups(candidates, groups, guarantee.gate, left, start.seed, 1).rows
        names = np.array(labels.class_names)[labels.class_index[rows]]
        reviewed = Reviewed(candidates.scores[rows], start.wrong[rows], tuple(names.tolist()))
        bounds = _reviewers(start, guarantee, delta)
        for one in SampleTest(reviewed, groups, candidates, guarantee, delta, bounds).judge():
            if one.certificate.threshold is not None:
                kept = candidates.of(one.plan.model_copy(update={"classes": one.classes}))
                accepted |= kept & (candidates.scores >= one.certificate.threshold)
    naive = _naive(start, guarantee, left)
    asked = np.unique(np.concatenate([start.first, rows]))
    left_accepted = start.accepted(accepted, asked)
    found = true_precision(left_accepted, start.board.correct, start.about(guarantee.gate))
    return Draw(
        reviewed=len(asked),
        review_seconds=float(SECONDS[start.verdicts[asked]].sum()) + start.board.honeypots * VERIFY_S,
        automation=float(accepted.mean()),
        accepted_precision=found.accepted_precision,
        delivered_precision=found.delivered_precision,
        broken=_broken(start, left_accepted, groups, guarantee),
        seconds_per_box=_seconds_per_box(start, accepted, asked),
        oracle=oracle(candidates.scores[start.side], ~start.board.correct[start.side], guarantee),
        naive=float(naive.mean()),
        naive_broken=_broken(start, naive, groups, guarantee),
    )


def _reviewers(start: _Start, guarantee: Guarantee, delta: float) -> ReviewerError:
    """Bound what the reviewer misses by honeypots, as many as the board has."""
    honeypots = start.board.honeypots
    if not honeypots:
        return TRUSTED
    names = [f"honeypot-{number}" for number in range(honeypots)]
    missed = chances(names, start.seed) < start.board.errors.missed
    # Half of them have scores of labels that people get in any case, as with `vouch plan-reviews`.
    routed = honeypots // 2 if guarantee.gate == "delivered" else 0
    first, rest = missed[: honeypots - routed], missed[honeypots - routed :]
    return reviewer_error(len(first), int(first.sum()), delta, routed, int(rest.sum()))


def _naive(start: _Start, guarantee: Guarantee, reviews: int) -> Bools:
    """What the loosest threshold accepts at which as many reviewed labels, drawn uniformly, look good enough."""
    scores = start.candidates.scores
    rows = certification_sample(start.side, reviews, start.seed, NAIVE).rows
    sample, steps = Sample(scores[rows], start.wrong[rows]), threshold_grid(scores[start.side])
    if guarantee.gate == "accepted":
        found = gate_a(sample, steps, np.ones(len(steps), np.int64), guarantee.precision, 0.5)
    else:
        found = binomial_gate_b(sample, steps, guarantee.precision, 0.5)
    good = np.flatnonzero((found.reviewed > 0) & (found.errors <= (1 - guarantee.precision) * found.reviewed))
    least = float(steps[good[-1]]) if len(good) else np.inf
    return np.asarray(start.side & (scores >= least))


def _broken(start: _Start, accepted: Bools, groups: Sequence[GroupPlan], guarantee: Guarantee) -> bool:
    """Whether the guarantee of any group is broken."""
    about = start.about(guarantee.gate)
    everything = replace(start.candidates, population=about)
    among = [everything.of(group) for group in groups] or [about]
    found = [true_precision(accepted, start.board.correct, part) for part in among]
    return any(is_kept(one, guarantee.gate, guarantee.precision) is False for one in found)


def _seconds_per_box(start: _Start, accepted: Bools, asked: Ints) -> float | None:
    """Time of all reviews and of all labels that are not accepted, over delivered boxes."""
    seen = ~accepted
    boxes = int((accepted | start.board.boxes).sum())
    seen[asked] = True
    seconds = float(SECONDS[start.verdicts[seen]].sum()) + start.board.honeypots * VERIFY_S
    return seconds / boxes if boxes else None


def answers(rows: Sequence[SimulatedRow], automate: float) -> tuple[PlanningAnswer, ...]:
    """Say for each precision how many of the reviews tried automate so much in the median draw."""
    precisions = sorted({one.precision for one in rows})
    return tuple(_answer([one for one in rows if one.precision == precision], automate) for precision in precisions)


@dataclass(frozen=True)
class AnsweredPlan:
    """A review plan that was answered."""

    planned: Planned
    rows: Ints
    """Labels that were asked about; -1 for honeypots."""
    answers: int
    """Verdicts written."""


@dataclass(frozen=True)
class Round:
    """What a round came to."""

    reviewed: tuple[AnsweredPlan, AnsweredPlan]
    """The first sample, and the certification sample."""
    certified: Certified | None
    """None where the sample could certify nothing from the start."""
    refusal: str
    """Why, then; else empty."""
    applied: ApplySummary | None
    """None where nothing was certified."""
    contract: ContractTruth | None
    """Against the truth; None where nothing was certified."""
    labels: RunLabels
    """As they are decided now."""
    truth: RunTruth


def review_round(
    campaign: Campaign, truth_file: Path, requests: tuple[ReviewRequest, ReviewRequest], *, export: bool
) -> Round:
    """Play a round in the campaign's workspace; its verdicts, and the policy, are marked as simulated.

    The run is labelled, and nothing was asked about it yet; requests are those of the first and of the certification
    sample.

    Raises:
        UserError: The truth fits none of the labels, or there are too few of them.
        StoreError: The workspace cannot be read or written.
    """
    labels, truth = truth_of_campaign(campaign, truth_file)
    first, second = (review_next(campaign, labels, truth, request) for request in requests)
    certified, refusal, applied, contract = None, "", None, None
    try:
        certified = certify_campaign(campaign)
    except NotCertifiedError as error:
        refusal = str(error)
    if certified is not None and certified.version is not None:
        applied = apply_policy(campaign, certified.version, export=export)
        workspace, run = open_store(campaign.workspace), campaign.run.name
        current = current_of(workspace, run)
        with Ledger.load(workspace, run) as ledger:
            labels = read_run_labels(workspace, run, ledger, current)
        policy = read_policy(workspace, certified.version, campaign.classes)
        answers = resolve(present_verdicts(workspace, current))
        codes = answers.wrong_of(labels.label_ids).astype(np.int64)
        contract = contract_truth(labels, truth, policy, read_coverage(workspace, policy), codes)
    return Round((first, second), certified, refusal, applied, contract, labels, truth)


def review_next(campaign: Campaign, labels: RunLabels, truth: RunTruth, request: ReviewRequest) -> AnsweredPlan:
    """Plan what is next, and answer all of it from ground truth; the verdicts are marked as simulated.

    Raises:
        UserError: There is nothing to ask.
        StoreError: The workspace cannot be read or written.
    """
    planned = plan_reviews(campaign, request)
    workspace = open_store(campaign.workspace)
    tasks = next(
        table for plan, table in read_plans(workspace, campaign.run.name) if plan.number == planned.plan.number
    )
    verdicts = answer(tasks, labels, truth, datetime.now(UTC))
    write_verdicts(workspace, verdicts)
    ids = [label for label in tasks["label_id"].to_pylist() if label is not None]
    return AnsweredPlan(planned, labels.places(ids), verdicts.num_rows)


def minutes_of(labels: int) -> float:
    """Budget that asks for so many labels; a hair more than their time, so that none is lost by rounding."""
    return (labels * VERIFY_S + 1e-3) / 60


def row(precision: float, reviews: int, draws: Sequence[Draw]) -> SimulatedRow:
    """Add up the draws of one precision and one number of reviews, at least one draw."""
    accepting = [draw for draw in draws if draw.automation > 0]
    broken, count = sum(draw.broken for draw in draws), len(draws)
    seconds = [draw.seconds_per_box for draw in draws if draw.seconds_per_box is not None]
    return SimulatedRow(
        precision=precision,
        reviews=reviews,
        reviewed=_median([draw.reviewed for draw in draws]),
        certified=len(accepting) / count,
        automation=_spread([draw.automation for draw in draws]),
        accepted_precision=_spread_of_known([draw.accepted_precision for draw in accepting]),
        delivered_precision=_spread_of_known([draw.delivered_precision for draw in accepting]),
        broken=broken / count,
        broken_interval=(
            float(lower_bound(broken, count, _INTERVAL / 2)),
            float(upper_bound(broken, count, _INTERVAL / 2)),
        ),
        review_minutes=_median([draw.review_seconds for draw in draws]) / 60,
        seconds_per_box=_median(seconds) if seconds else None,
        oracle=_median([draw.oracle for draw in draws]),
        naive=_median([draw.naive for draw in draws]),
        naive_broken=sum(draw.naive_broken for draw in draws) / count,
    )


def _answer(rows: Sequence[SimulatedRow], automate: float) -> PlanningAnswer:
    precision, by_reviews = rows[0].precision, sorted(rows, key=lambda one: one.reviews)
    enough = next((one for one in by_reviews if one.automation.median >= automate), None)
    guarantee = f"{automate:.0%} of these labels at {precision:g}"
    if enough is not None:
        words = (
            f"{enough.reviews:,} reviews (about {max(1, round(enough.review_minutes)):,} min) automate {guarantee}: "
            f"{enough.automation.median:.0%} in the median draw, at least {enough.automation.tenth:.0%} in nine of ten"
        )
        return PlanningAnswer(precision=precision, automate=automate, reviews=enough.reviews, words=words)
    best = max(by_reviews, key=lambda one: (one.automation.median, one.certified, one.reviews))
    oracle = max(one.oracle for one in by_reviews)
    words = (
        f"none of the reviews tried automates {guarantee}: {best.reviews:,} come to {best.automation.median:.0%} in "
        f"the median draw; who knows every label and ranks as well would come to {oracle:.0%}"
    )
    if oracle < automate:
        words += ", so more reviews alone will not do"
    else:
        words += ": try more reviews" if best.reviewed >= best.reviews else ": it takes a larger batch"
    return PlanningAnswer(precision=precision, automate=automate, reviews=None, words=words)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(
        median=_median(values),
        tenth=float(np.quantile(values, 0.1, method="inverted_cdf")),
        worst=float(min(values)),
    )


def _spread_of_known(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return _spread(known) if known else None


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def only(labels: RunLabels, kept: Bools) -> RunLabels:
    """Keep some labels of a run, and all of its images."""
    return RunLabels(
        label_ids=labels.label_ids.filter(pa.array(kept)),
        class_index=labels.class_index[kept],
        class_names=labels.class_names,
        image_index=labels.image_index[kept],
        boxes=labels.boxes[kept],
        signals=labels.signals[kept],
        p_correct=labels.p_correct[kept],
        accepted=labels.accepted[kept],
        keys=labels.keys,
        contents=labels.contents,
        shown_names=labels.shown_names,
        former=labels.former,
    )
