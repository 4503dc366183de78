"""Whether scores have moved since the policy was certified."""

from typing import Final

import numpy as np

from schemas.policy import Policy
from schemas.report import DriftReport, SignalDrift
from tasks.certify.monitor import P_CORRECT, audit_factor, drift
from tasks.labels.arrays import SIGNALS, RunLabels
from tasks.statistics.bounds import Bools

_PERCENTS: Final = np.arange(101)


def drift_report(policy: Policy, labels: RunLabels, certify_side: Bools) -> DriftReport:
    """Hold every signal against the percentiles that the policy keeps of the batch that was certified.

    Args:
        policy: The policy that decided.
        labels: All labels of the run.
        certify_side: (N,) labels that the promise is about.
    """
    promise = policy.certification
    if promise is None or not promise.reference:
        return DriftReport(missing="only a certified policy keeps the scores of its batch to compare with")
    found = drift(promise.reference, labels, labels.p_correct, certify_side)
    signals = tuple(
        SignalDrift(
            signal=name,
            distance=one.distance,
            drifted=one.audit_factor > 1,
            before=promise.reference[name],
            now=_percentiles(labels, name, certify_side),
        )
        for name, one in found.items()
    )
    return DriftReport(signals=signals, audit_factor=audit_factor(found))


def _percentiles(labels: RunLabels, name: str, chosen: Bools) -> tuple[float, ...]:
    values = labels.p_correct if name == P_CORRECT else labels.signals[:, SIGNALS.index(name)]
    values = values[chosen & np.isfinite(values)].astype(np.float64)
    return tuple(np.percentile(values, _PERCENTS).tolist()) if len(values) else ()
