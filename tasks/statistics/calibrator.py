"""Applies the calibrator: from the signals of a label to the probability that it is correct.

p = g(sigmoid(b + sum_s w_s (x_s - m_s) / d_s + sum_s v_s [x_s missing] + o_class)): a logistic regression on
standardised signals with an offset for each class, and g, a monotone correction where labels were many enough to show
that it helps.

A missing signal (NaN or infinite) stands at its mean, and adds the weight v_s that labels with the same gap have
earned. Where too few labels with that gap were reviewed to fit v_s, the label has no probability (NaN), and no
threshold accepts it.

Reliability is how far stated probabilities agree with what came true.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints

ROWS = 100_000
"""Labels that are worked on at once: bounds the memory."""


@dataclass(frozen=True)
class Calibrator:
    """A fitted calibrator; every field is plain, so that a policy can carry it."""

    signals: tuple[str, ...]
    """Names of the S columns."""
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    """Standard deviations, above 0."""
    weights: tuple[float, ...]
    gap_weights: tuple[float | None, ...]
    """Weight of each signal's absence; None: too few labels to tell, so no probability."""
    intercept: float
    offsets: Mapping[str, float]
    """Offset of each class; a class not named has 0, that of the average class."""
    knots: tuple[tuple[float, float], ...] = ()
    """(sigmoid, probability), both rising: g is linear between them, constant outside; none: g is the identity."""

    def probabilities(self, signals: NDArray[Any], classes: NDArray[np.integer[Any]], names: tuple[str, ...]) -> Floats:
        """Give p(correct) of each label, (N,) in [0, 1], from its (N, S) signals, NaN or infinite where missing.

        Rounded to float32's values as tables hold them, so that a threshold chosen on these numbers means the same
        labels later; NaN where a signal is missing whose absence was not fitted.
        """
        found = np.empty(len(signals))
        for start in range(0, len(signals), ROWS):
            rows = slice(start, start + ROWS)
            found[rows] = scipy.special.expit(self.logits(signals[rows], classes[rows], names))
        if self.knots:
            found = np.interp(found, *np.array(self.knots).T)
        return found.astype(np.float32).astype(np.float64)

    def logits(self, signals: NDArray[Any], classes: NDArray[np.integer[Any]], names: tuple[str, ...]) -> Floats:
        """What `probabilities` takes the sigmoid of, (N,)."""
        offsets = np.array([self.offsets.get(name, 0.0) for name in names])
        return np.asarray(self._linear(np.asarray(signals, np.float64)) + offsets[classes], np.float64)

    def _linear(self, signals: Floats) -> Floats:
        missing = ~np.isfinite(signals)
        scaled = np.where(missing, 0.0, (signals - self.means) / self.deviations)
        total = scaled @ np.array(self.weights) + self.intercept
        for column in np.flatnonzero(missing.any(axis=0)):
            weight = self.gap_weights[column]
            total[missing[:, column]] += np.nan if weight is None else weight
        return np.asarray(total, np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that JSON can say, NaN-free."""
        return asdict(self) | {"offsets": dict(self.offsets)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Calibrator":
        """Read what `to_dict` gave, also after a way through JSON.

        Raises:
            UserError: Keys are missing or unknown, columns differ in number, or a number is not finite.
        """
        try:
            plain = {key: _tuples(value) for key, value in values.items()}
            calibrator = Calibrator(**plain)
            columns = len(calibrator.signals)
            numbers = np.array([calibrator.means, calibrator.deviations, calibrator.weights], np.float64)
            rest = [calibrator.intercept, *calibrator.offsets.values(), *(x for knot in calibrator.knots for x in knot)]
            rest += [weight for weight in calibrator.gap_weights if weight is not None]
            sound = numbers.shape == (3, columns) and len(calibrator.gap_weights) == columns
            sound = sound and bool(np.isfinite(numbers).all() and np.isfinite(np.array(rest, np.float64)).all())
            sound = sound and bool((numbers[1] > 0).all())
        except (TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise UserError("the policy's calibrator is damaged; restore the policy, or certify again")
        return calibrator


def _tuples(value: Any) -> Any:  # noqa: ANN401 - plain JSON
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram and its sums."""

    stated: Floats
    """(B,) mean probability of each bin, ascending."""
    seen: Floats
    """(B,) weighted share of correct labels of each bin."""
    labels: Ints
    """(B,) labels of each bin."""
    brier: float
    """Weighted mean of (p - correct)^2."""
    calibration_error: float
    """Expected calibration error: weighted mean of |stated - seen| over the bins."""


def reliability(probabilities: Floats, correct: Bools, weights: Floats, bins: int = 15) -> Reliability:
    """Hold probabilities against verdicts, in bins of equal mass.

    Bins hold equally many labels as far as equal probabilities allow, which biases the error less than bins of equal
    width (K. Nixon et al., Measuring Calibration in Deep Learning, 2019). Even a perfect calibrator has an error above
    0, from chance within the bins. Labels without a probability are left out; weights are 1 / inclusion probability, so
    that the figures are those of the batch.
    """
    known = np.flatnonzero(np.isfinite(probabilities))
    order = known[np.argsort(probabilities[known], kind="stable")]
    p, right, weight = probabilities[order], correct[order].astype(np.float64), weights[order]
    count = min(bins, len(order))
    if not count:
        return Reliability(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), float("nan"), float("nan"))
    place = np.arange(len(order)) * count // len(order)
    # Equal probabilities share a bin: which of them stand first says nothing.
    place = np.unique(place[np.searchsorted(p, p)], return_inverse=True)[1]
    mass = np.bincount(place, weight)
    stated, seen = np.bincount(place, weight * p) / mass, np.bincount(place, weight * right) / mass
    return Reliability(
        stated=stated,
        seen=seen,
        labels=np.bincount(place),
        brier=float(weight @ (p - right) ** 2 / weight.sum()),
        calibration_error=float(mass @ np.abs(stated - seen) / mass.sum()),
    )
