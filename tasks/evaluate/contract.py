"""Did the contract hold? What a certified policy promised, against ground truth."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.evaluation import ContractTruth, GroupTruth, TruePrecision
from schemas.policy import Group, Policy
from tasks.labels.arrays import RunLabels
from tasks.simulate.truth import RunTruth

_ROUNDING: Final = 1e-9
"""So that 19 of 20 are 0.95."""


def contract_truth(labels: RunLabels, truth: RunTruth, policy: Policy) -> ContractTruth | None:
    """Hold the promise of a policy against the truth.

    The promise is about the labels of the images that were not kept for fitting, group by group, as they were routed.
    A label is correct as `truth.truth_of_labels` has it, and the delivered set is what people leave who answer right.
    A promise with confidence 1 - delta may be broken, by chance, in a share delta of campaigns.

    Args:
        labels: All labels of the run.
        truth: The right answers about them.
        policy: The policy that decided.

    Returns:
        What is true; None where the policy is not a certified one.
    """
    certification = policy.certification
    if certification is None:
        return None
    side = ~labels.fit_side(certification.fit_share, certification.seed)
    group_of = _groups(labels, policy)
    groups = tuple(
        _group(labels, truth, group, side & (group_of == place), certification.gate, certification.precision)
        for place, group in enumerate(policy.groups)
    )
    kept = [group.kept for group in groups if group.kept is not None]
    return ContractTruth(
        policy=policy.version,
        precision=certification.precision,
        confidence=certification.confidence,
        gate=certification.gate,
        simulated=certification.simulated,
        held=all(kept) if kept else None,
        groups=groups,
        certified_side=true_precision(labels.accepted, truth.correct, truth.counted & side),
        whole_run=true_precision(labels.accepted, truth.correct, truth.counted),
        without_truth=dict(truth.left_out),
    )


def true_precision(accepted: NDArray[np.bool_], correct: NDArray[np.bool_], among: NDArray[np.bool_]) -> TruePrecision:
    """Give both true precisions of a set of labels.

    Args:
        accepted: (N,) labels that nobody looks at.
        correct: (N,) labels that are right.
        among: (N,) the set.
    """
    right, all_accepted = int((accepted & correct & among).sum()), int((accepted & among).sum())
    kept, count = int((~accepted & correct & among).sum()), int(among.sum())
    return TruePrecision(
        labels=count,
        accepted=all_accepted,
        automation=_share(all_accepted, count),
        accepted_precision=_share(right, all_accepted),
        delivered_precision=_share(right + kept, all_accepted + kept),
    )


def is_kept(found: TruePrecision, gate: str, precision: float) -> bool | None:
    """Say whether a promise is kept; None where nothing was accepted, so nothing promised.

    Args:
        found: What is true of the set that the promise is about.
        gate: "accepted" or "delivered".
        precision: T.
    """
    value = found.accepted_precision if gate == "accepted" else found.delivered_precision
    return None if not found.accepted or value is None else value >= precision - _ROUNDING


def _group(
    labels: RunLabels, truth: RunTruth, group: Group, among: NDArray[np.bool_], gate: str, precision: float
) -> GroupTruth:
    found = true_precision(labels.accepted, truth.correct, truth.counted & among)
    certificate = group.certificate
    certified = 1 - certificate.bound if certificate is not None and group.p_correct is not None else None
    return GroupTruth(
        name=group.name,
        threshold=group.p_correct,
        certified=certified,
        kept=is_kept(found, gate, precision),
        **found.model_dump(),
    )


def _groups(labels: RunLabels, policy: Policy) -> NDArray[np.int64]:
    """Place of each label's group in the policy, (N,)."""
    place_of = {name: place for place, group in enumerate(policy.groups) for name in group.classes}
    return np.array([place_of[name] for name in labels.class_names], np.int64)[labels.class_index]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
