"""Plays campaigns of reviews on a run with ground truth: how many reviews certify how much?"""

from collections.abc import Callable

from schemas.errors import UserError
from schemas.evaluation import Simulation
from tasks.certify.data import Promise
from tasks.labels.arrays import RunLabels
from tasks.simulate.board import board, seconds_of
from tasks.simulate.figures import Draw, answers, row
from tasks.simulate.play import play
from tasks.simulate.question import Question
from tasks.simulate.truth import RunTruth


def simulate(
    labels: RunLabels,
    truth: RunTruth,
    question: Question,
    names: tuple[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Play every number of reviews so often, and hold each result against the truth.

    Draws differ in the split, in what is drawn for review and in the reviewer's errors; the labels are the same. So the
    figures say what would come of such reviews on this run; another batch of images has other labels. Labels are never
    drawn twice to make a larger batch: a number of reviews above what a side has reviews all of it.

    Args:
        labels: All labels of the run.
        truth: The right answers about them.
        question: What to play.
        names: The ground-truth file and the run, for the report.
        progress: Called with draws played and draws in all.

    Raises:
        UserError: No label has truth.
    """
    played = board(labels, truth, question.errors, question.plants)
    if not played.labels.count:
        raise UserError(f"{names[0]}: none of the run's labels has truth to simulate a reviewer with")
    promises = [Promise(precision, question.confidence, question.gate) for precision in question.precisions]
    results: dict[tuple[float, int], list[Draw]] = {}
    total = len(question.reviews) * question.draws
    for place, reviews in enumerate(question.reviews):
        for number in range(question.draws):
            for promise, draw in zip(promises, play(played, promises, reviews, number), strict=True):
                results.setdefault((promise.precision, reviews), []).append(draw)
            if progress is not None:
                progress(place * question.draws + number + 1, total)
    rows = tuple(row(precision, reviews, results[precision, reviews]) for precision, reviews in sorted(results))
    boxes = int(played.boxes.sum())
    return Simulation(
        truth=names[0],
        run=names[1],
        images=int(truth.known.sum()),
        labels=played.labels.count,
        correct=float(played.correct.mean()),
        without_truth=dict(truth.left_out),
        gate=question.gate,
        confidence=question.confidence,
        draws=question.draws,
        missed=question.errors.missed,
        plants=question.plants,
        seconds_per_box_by_hand=float(seconds_of(played.verdict).sum()) / boxes if boxes else None,
        rows=rows,
        answers=answers(rows, question.automate),
    )
