"""Notices when a run's signals have moved away from those of the batch that was certified."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from tasks.contract.run_labels import SIGNALS, RunLabels
from tasks.statistics.bounds import Bools, Floats
from tasks.statistics.monitoring import Drift, score_drift

PERCENTILES: Final = 101
P_CORRECT: Final = "p_correct"
_STEPS: Final = 20
"""Values that stand for each percent of the reference."""


def reference(labels: RunLabels, scores: Floats, chosen: Bools) -> dict[str, tuple[float, ...]]:
    """Take the percentiles 0, 1 ... 100 of every signal and of p(correct); a signal without a value is left out.

    Args:
        labels: Labels of the run.
        scores: (N,) their p(correct) by the policy's calibrator.
        chosen: (N,) those that count: the certify side.
    """
    found = {}
    for name, values in _columns(labels, scores, chosen).items():
        known = values[np.isfinite(values)]
        if len(known):
            found[name] = tuple(np.percentile(known, np.linspace(0, 100, PERCENTILES)).tolist())
    return found


def drift(
    before: Mapping[str, tuple[float, ...]], labels: RunLabels, scores: Floats, chosen: Bools
) -> dict[str, Drift]:
    """Compare every signal with its percentiles when the policy was certified.

    Args:
        before: As `reference` gave it.
        labels: Labels of the run now.
        scores: (N,) their p(correct) by the policy's calibrator.
        chosen: (N,) those that count: the certify side.

    Returns:
        Signal -> its drift, the largest distance first.
    """
    now = _columns(labels, scores, chosen)
    found = {}
    for name, percentiles in before.items():
        if name in now:
            # Percentiles tie the distribution down to one percent, far below the distance that counts as drift.
            places = np.linspace(0, len(percentiles) - 1, _STEPS * (len(percentiles) - 1) + 1)
            found[name] = score_drift(np.interp(places, np.arange(len(percentiles)), percentiles), now[name])
    return dict(sorted(found.items(), key=lambda item: -item[1].distance))


def audit_factor(drifts: Mapping[str, Drift]) -> float:
    """How many times more to audit: as the signal says that asks for most."""
    return max((one.audit_factor for one in drifts.values()), default=1.0)


def _columns(labels: RunLabels, scores: Floats, chosen: Bools) -> dict[str, Floats]:
    columns = {name: labels.signals[chosen, place].astype(np.float64) for place, name in enumerate(SIGNALS)}
    return columns | {P_CORRECT: scores[chosen]}
