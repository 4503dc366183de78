"""Fits a calibrator to reviewed labels, and scores it on images that it has not seen.

Boosted trees are left out: a policy carries its calibrator as plain numbers, and trees would need a reader.
scikit-learn is imported where it is used, since every command reaches this file and few fit.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints
from vouch_labels.tasks.statistics.calibrator import Calibrator

STRENGTH: Final = 1.0
"""Inverse of the L2 penalty: a priori weights and offsets are normal with this variance."""
FEWEST_GAPS: Final = 20
"""Labels with a signal missing from which its absence has a weight of its own."""
ISOTONIC_FROM: Final = 1_000
FOLDS: Final = 5
FEWEST_LABELS: Final = 20


@dataclass(frozen=True)
class Fitted:
    """A calibrator and its marks."""

    calibrator: Calibrator
    held_out: Floats
    """(n,) probability of each label by a calibrator that has seen no label of its image."""
    brier: float
    """Mean of (held_out - correct)^2."""
    brier_of_rate: float
    """The same of the constant share of correct labels: what a calibrator must beat."""
    labels: int
    isotonic: bool


def fit_calibrator(
    signals: NDArray[Any],
    names: tuple[str, ...],
    classes: Ints,
    class_names: tuple[str, ...],
    correct: Bools,
    images: Ints,
    seed: int,
) -> Fitted:
    """Fit p(correct) to n reviewed labels with (n, S) signals, NaN or infinite where missing.

    Labels drawn by their scores need no weights: given the signals, which labels were drawn says nothing more of their
    correctness. The monotone correction is centred isotonic regression (A. Oron and N. Flournoy, Statistics in
    Biopharmaceutical Research 9, 2017), which has no plateaus, so no ties that a threshold cannot part. It is taken
    from 1,000 labels on, and only where it lowers the held-out Brier score by more than one standard error of the
    difference. If all labels have one verdict, or all are in one image, the calibrator is the constant
    (correct + 1) / (labels + 2).

    Raises:
        UserError: Fewer than `FEWEST_LABELS` labels.
    """
    if len(correct) < FEWEST_LABELS:
        raise UserError(f"{len(correct)} reviewed labels are too few to fit; review at least {FEWEST_LABELS}")
    data = _Data(signals, names, classes, class_names, correct)
    folds = _folds(images, seed)
    whole = _fit(data, np.ones(len(correct), np.bool_))
    held_out = np.empty(len(correct))
    for fold in np.unique(folds):
        inside = folds == fold
        part = _fit(data, ~inside) if not inside.all() else whole
        held_out[inside] = part.probabilities(signals[inside], classes[inside], class_names)
    corrected = _cross_corrected(held_out, correct, folds) if len(correct) >= ISOTONIC_FROM else None
    if corrected is not None and _clearly_better(corrected, held_out, correct):
        known = np.isfinite(held_out)
        whole = replace(whole, knots=_knots(held_out[known], correct[known]))
        held_out = corrected
    rate = float(correct.mean())
    # A label without a probability is as good as the constant.
    brier = float(((np.where(np.isfinite(held_out), held_out, rate) - correct) ** 2).mean())
    return Fitted(whole, held_out, brier, rate * (1 - rate), len(correct), bool(whole.knots))


@dataclass(frozen=True)
class _Data:
    signals: NDArray[Any]
    names: tuple[str, ...]
    classes: Ints
    class_names: tuple[str, ...]
    correct: Bools


def _folds(images: Ints, seed: int) -> Ints:
    """Fold of each label, (n,); an image lies in one fold."""
    count = min(FOLDS, len(np.unique(images)))
    folds = np.zeros(len(images), np.int64)
    if count > 1:
        from sklearn.model_selection import GroupKFold

        parts = GroupKFold(count, shuffle=True, random_state=seed).split(images, groups=images)
        for fold, (_, inside) in enumerate(parts):
            folds[inside] = fold
    return folds


def _fit(data: _Data, chosen: Bools) -> Calibrator:
    from sklearn.linear_model import LogisticRegression

    signals = np.asarray(data.signals[chosen], np.float64)
    correct = data.correct[chosen]
    missing = ~np.isfinite(signals)
    means, deviations = _moments(np.where(missing, np.nan, signals))
    own = missing.sum(axis=0) >= FEWEST_GAPS
    count, columns = signals.shape
    if correct.all() or not correct.any():
        rate = (float(correct.sum()) + 1) / (count + 2)
        weights, gaps, offsets = np.zeros(columns), np.zeros(columns), np.zeros(len(data.class_names))
        own, intercept = np.ones(columns, np.bool_), float(np.log(rate / (1 - rate)))
    else:
        # Labels whose gap gets no weight of its own must not bend the others' weights.
        usable = ~(missing & ~own).any(axis=1)
        usable = usable if 0 < correct[usable].sum() < usable.sum() else np.ones(count, np.bool_)
        scaled = np.where(missing, 0.0, (signals - means) / deviations)
        belongs = np.eye(len(data.class_names))[data.classes[chosen]]
        design = np.concatenate([scaled, missing[:, own], belongs], axis=1)
        model = LogisticRegression(C=STRENGTH, max_iter=1_000).fit(design[usable], correct[usable])
        found, intercept = model.coef_[0], float(model.intercept_[0])
        weights, offsets = found[:columns], found[columns + own.sum() :]
        gaps = np.zeros(columns)
        gaps[own] = found[columns : columns + own.sum()]
    return Calibrator(
        signals=data.names,
        means=tuple(means.tolist()),
        deviations=tuple(deviations.tolist()),
        weights=tuple(weights.tolist()),
        gap_weights=tuple(value if known else None for value, known in zip(gaps.tolist(), own.tolist(), strict=True)),
        intercept=intercept,
        offsets=dict(zip(data.class_names, offsets.tolist(), strict=True)),
    )


def _moments(signals: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column without its gaps, (S,) each; 0 and 1 where there is no more."""
    known = np.isfinite(signals)
    count = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, signals, 0.0).sum(axis=0) / count
    deviations = np.sqrt((np.where(known, signals - means, 0.0) ** 2).sum(axis=0) / count)
    return means, np.where(deviations > 1e-9 * (1 + np.abs(means)), deviations, 1.0)


def _cross_corrected(held_out: Floats, correct: Bools, folds: Ints) -> Floats:
    """The held-out probabilities, those of each fold corrected by the other folds' isotonic regression."""
    found = held_out.copy()
    known = np.isfinite(held_out)
    for fold in np.unique(folds):
        inside, outside = known & (folds == fold), known & (folds != fold)
        if inside.any() and outside.any():
            found[inside] = np.interp(held_out[inside], *np.array(_knots(held_out[outside], correct[outside])).T)
    return found


def _clearly_better(new: Floats, old: Floats, correct: Bools) -> bool:
    known = np.isfinite(old)
    gain = ((old - correct) ** 2 - (new - correct) ** 2)[known]
    return bool(len(gain) > 1 and gain.mean() > gain.std() / np.sqrt(len(gain)))


def _knots(probabilities: Floats, correct: Bools) -> tuple[tuple[float, float], ...]:
    """Centres of the blocks of an isotonic regression."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    values = model.fit_transform(probabilities, correct)
    levels, block = np.unique(values, return_inverse=True)
    centres = np.bincount(block, weights=probabilities) / np.bincount(block)
    return tuple(zip(centres.tolist(), levels.tolist(), strict=True))
