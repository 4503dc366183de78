"""Fits the calibrator of a run to the verdicts that are there: the calibration set, and whatever else was reviewed."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.arrow import numbers
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.labels.arrays import RunLabels
from vouch_labels.tasks.reviews.plans import Plans
from vouch_labels.tasks.reviews.resolve import CORRECT, WRONG, Answers
from vouch_labels.tasks.shard.numbers import SIGNALS
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.fit_calibrator import FEWEST_LABELS, Fitted, fit_calibrator
from vouch_labels.tasks.statistics.planning import FitLabels


@dataclass(frozen=True)
class Fit:
    """A calibrator, what it was fitted to, and what it says of every label."""

    fitted: Fitted
    scores: Floats
    """(N,) p(correct) of every label of the run; NaN where there is none."""
    labels: FitLabels
    """The n reviewed labels, with held-out scores."""
    rows: Ints
    """(n,) which labels of the run they are."""

    @property
    def calibrator(self) -> Calibrator:
        """The fitted calibrator."""
        return self.fitted.calibrator


def calibrator_fingerprint(calibrator: Calibrator) -> str:
    """Name a calibrator by its content."""
    return fingerprint(calibrator.to_dict())


def fit_run(labels: RunLabels, plans: Plans, answers: Answers, seed: int) -> Fit:
    """Fit to every undisputed verdict.

    Labels drawn to fit by weigh 1 / inclusion probability, with several draws 1 / (1 - prod(1 - pi)); labels that were
    chosen, not drawn, have weight 1. The weights serve predictions of what can be certified, not the fit itself, and no
    guarantee rests on either.

    Raises:
        UserError: Fewer labels than a calibrator needs.
    """
    rows, wrong = fit_verdicts(labels, answers)
    if len(rows) < FEWEST_LABELS:
        raise UserError(
            f"{len(rows)} labels are reviewed for fitting, at least {FEWEST_LABELS} are needed; "
            "use `vouch plan-reviews` and answer what it asks"
        )
    return fit_rows(labels, rows, wrong, 1 / inclusion_to_fit(labels, plans, rows), seed)


def fit_rows(labels: RunLabels, rows: Ints, wrong: Bools, weights: Floats, seed: int) -> Fit:
    """Fit to these labels, (n,) rows with weights 1 / inclusion probability, and score all.

    Raises:
        UserError: Fewer labels than a calibrator needs.
    """
    fitted = fit_calibrator(
        labels.signals_of(rows),
        SIGNALS,
        labels.class_index[rows],
        labels.class_names,
        ~wrong,
        labels.image_index[rows],
        seed,
    )
    scores = labels.probabilities(fitted.calibrator)
    return Fit(fitted, scores, FitLabels(fitted.held_out, wrong, weights), rows)


def fit_verdicts(labels: RunLabels, answers: Answers) -> tuple[Ints, Bools]:
    """Find the undisputed verdicts: (n,) rows of the labels, ascending, and whether each is wrong."""
    places = labels.places(answers.ids)
    codes = answers.wrong_of(answers.ids)
    known = (places >= 0) & ((codes == CORRECT) | (codes == WRONG))
    order = np.argsort(places[known], kind="stable")
    return places[known][order], (codes[known] == WRONG)[order]


def inclusion_to_fit(labels: RunLabels, plans: Plans, rows: Ints) -> Floats:
    """Probability with which some labels, (n,) rows, were to be drawn for fitting; 1 for those that no draw took."""
    spared = np.ones(labels.count)
    for _, tasks in plans:
        chosen = tasks.filter(pc.equal(tasks["purpose"], "fit"))
        places = labels.places(chosen["label_id"])
        inclusion = numbers(chosen["inclusion"], np.float64)
        spared[places[places >= 0]] *= 1 - inclusion[places >= 0]
    left = spared[rows]
    return np.where(left < 1, 1 - left, 1.0)
