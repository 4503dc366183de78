"""What certifying a group has come to: its threshold, or why there is none and how many reviews are missing."""

from dataclasses import dataclass

import numpy as np

from tasks.certify.bounds import Floats, lower_bound, most_errors
from tasks.certify.gates import Evidence, Sample
from tasks.certify.groups import NEXT_LOOK
from tasks.certify.ladder import certified_step
from tasks.certify.planning import reviews_needed


@dataclass(frozen=True)
class Certificate:
    """The result for one group."""

    gate: str
    threshold: float | None
    """Accept labels with p(correct) at or above it; None: accept nothing."""
    reviewed: int
    """Sampled labels that stood for the set of this threshold, n; of the threshold that failed where there is none."""
    errors: int
    """Wrong among them, k."""
    bound: float
    """Upper bound of the share of wrong labels there, at the confidence of the test."""
    p_value: float
    tested: Floats
    """The thresholds up to and with the first that failed, in the order tested."""
    refusal: str
    """Why nothing is accepted; empty where something is."""
    more_reviews: int | None
    """About how many more reviewed labels of the kind that was drawn would certify the first threshold with a chance
    of 80%, if its share of errors stays, at the level of the next look, which drawing them is; None where something is
    certified, or no number would do."""


def certify(evidence: Evidence, drawn: int) -> Certificate:
    """Test a ladder in its order, and put the result into words.

    Args:
        evidence: Of `gate_a` or `gate_b`, the ladder fixed beforehand.
        drawn: Sampled labels in all, those outside the tested sets included.
    """
    step = certified_step(evidence)
    if not len(evidence.thresholds):
        return Certificate(
            evidence.gate, None, 0, 0, 1.0, 1.0, evidence.thresholds, "there is no threshold to test", None
        )
    shown = 0 if step is None else step
    last = 0 if step is None else min(step + 1, len(evidence.thresholds) - 1)
    refusal, more = _refusal(evidence, drawn) if step is None else ("", None)
    return Certificate(
        gate=evidence.gate,
        threshold=None if step is None else float(evidence.thresholds[step]),
        reviewed=int(evidence.reviewed[shown]),
        errors=int(evidence.errors[shown]),
        bound=evidence.bound(shown),
        p_value=float(evidence.p_values[shown]),
        tested=evidence.thresholds[: last + 1],
        refusal=refusal,
        more_reviews=more,
    )


def _refusal(evidence: Evidence, drawn: int) -> tuple[str, int | None]:
    """Why the first threshold failed, and how many more labels to draw."""
    reviewed, errors, limit = int(evidence.reviewed[0]), int(evidence.errors[0]), float(evidence.limits[0])
    if limit <= 0:
        return "reviewers may miss so many wrong labels that no sample shows this precision; plant more of them", None
    most = int(most_errors(reviewed, limit, evidence.delta))
    found = f"{errors} of {reviewed} reviewed labels are wrong at the strictest threshold"
    found += f", at most {most} may be" if most >= 0 else ", and so few certify nothing even without an error"
    if float(lower_bound(errors, reviewed, evidence.delta)) >= limit:
        return f"{found}; more reviews will not help while so many are wrong", None
    delta = evidence.delta * NEXT_LOOK
    # Half an error more and one label: without any error the share is small, not 0.
    needed = reviews_needed((errors + 0.5) / (reviewed + 1), limit, delta)
    condition = ""
    if needed is None or not reviewed:
        needed = reviews_needed(limit / 2, limit, delta)
        condition = ", enough if half as many are wrong as may be"
    if needed is None:
        return f"{found}; a million reviews would not do", None
    more = max(1, int(np.ceil((needed - reviewed) * drawn / reviewed))) if reviewed else needed
    return f"{found}; review about {more:,} more{condition}", more


@dataclass(frozen=True)
class Precisions:
    """Both precisions at a threshold, as a sample of the whole certify side estimates them."""

    accepted: float
    """A: of the accepted labels; NaN without a sampled one."""
    accepted_at_least: float
    delivered: float
    """B: of the delivered labels, reviewers taken at their word; NaN without a sampled one."""
    delivered_at_least: float
    automated: float
    """Share of all labels that is accepted."""


def both_precisions(sample: Sample, threshold: float | None, delta: float) -> Precisions:
    """Estimate both precisions from a simple random sample of all labels, with lower bounds at 1 - delta each.

    The bounds are for reading: a threshold that was chosen by this sample has its promise from `certify` alone, and
    that for its own gate.
    """
    accepted = sample.scores >= (np.inf if threshold is None else threshold)
    right, wrong = int((accepted & ~sample.wrong).sum()), int((accepted & sample.wrong).sum())
    kept = int((~accepted & ~sample.wrong).sum())
    return Precisions(
        accepted=_share(right, right + wrong),
        accepted_at_least=float(lower_bound(right, right + wrong, delta)),
        delivered=_share(right + kept, right + kept + wrong),
        delivered_at_least=float(lower_bound(right + kept, right + kept + wrong, delta)),
        automated=_share(right + wrong, len(accepted)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
