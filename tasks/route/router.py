"""Applies a policy to the signals of many labels at once."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import UserError, VouchError
from schemas.policy import Certification, Group, Policy
from schemas.tables import DECISIONS
from tasks.arrow import flat, numbers
from tasks.route.certified_rules import decide_by_probability, kept_for_fitting, probabilities
from tasks.route.user_rules import decide_by_thresholds, user_signals
from tasks.statistics.bounds import Floats

ACCEPT: Final = "accept"
REVIEW: Final = "review"

_Decide: TypeAlias = Callable[[Group, NDArray[np.int64]], tuple[NDArray[np.bool_], Any]]
"""Decides on the labels of a group, given by their rows: accepted, and the reasons."""


def route(images: pa.Table, detect: pa.Table, segment: pa.Table, score: pa.Table, policy: Policy) -> pa.Table:
    """Decide on every label: accept, or review with the reason.

    By a certified policy a label is accepted when its class has a certified threshold, the probability of being correct
    that the policy's calibrator gives it is finite and at or above that threshold, both float32's values, and its
    image is not on the side that the calibrator was fitted on (the promise is about the other side). Reasons, the
    first that applies:

    - review: "no certified threshold for this class"
    - review: "image kept for fitting the calibrator"
    - review: "p_correct missing"
    - "p_correct 0.973 >= 0.912" or "p_correct 0.710 < 0.912", cut to three digits, which read as less when below

    By any other policy it is accepted when its class has a rule and every signal that the rule asks for is finite and
    at or above its threshold, compared in float32, the precision of the columns. Reasons:

    - accept: the rule that holds, "clip_probability >= 0.60, sam_iou >= 0.80"
    - review: every signal that fails, in the order of `schemas.campaign.SIGNALS`: "clip_probability 0.41 < 0.60",
      "sam_iou missing" for null, NaN or infinite; values are cut, not rounded, so that they read as less
    - review: "no threshold allows this class"

    Args:
        images: IMAGES of the labels; a certified policy looks at `key` and `sha256`.
        detect: DETECTIONS, N rows.
        segment: MASKS, row for row the same labels.
        score: SCORES, row for row the same labels.
        policy: A rule for every class that occurs.

    Returns:
        DECISIONS, N rows in the same order; p_correct is null where the policy's calibrator has no probability, and
        without a calibrator.

    Raises:
        VouchError: The tables are not of the same labels in the same order, or lack a label's image.
        UserError: The policy has no rule for a class that occurs, or its calibrator cannot be used.
    """
    ids = flat(detect["label_id"])
    for table in (segment, score):
        if not ids.equals(flat(table["label_id"])):
            raise VouchError("the detections, masks and scores are not of the same labels; run the shard again")
    groups = _group_indices(flat(detect["class_name"]), policy)
    if policy.certification is not None:
        p_correct, decide = _certified(images, detect, segment, score, policy.certification)
    else:
        p_correct, decide = np.full(len(ids), np.nan), _by_the_user(detect, segment, score)
    accepted, reasons = _group_by_group(policy, groups, decide)
    return pa.table(
        [
            ids,
            pa.array(p_correct.astype(np.float32), mask=np.isnan(p_correct)),
            pc.if_else(pa.array(accepted), ACCEPT, REVIEW),
            reasons,
            pa.repeat(pa.scalar(policy.version, pa.string()), len(ids)),
        ],
        schema=DECISIONS,
    )


def _group_indices(classes: pa.Array, policy: Policy) -> NDArray[np.int64]:
    """Index of each label's group, (N,)."""
    group_of = {name: index for index, group in enumerate(policy.groups) for name in group.classes}
    encoded = classes.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    unknown = [name for name in names if name not in group_of]
    if unknown:
        raise UserError(f"the policy {policy.version} has no rule for {', '.join(unknown)}; add one, or use another")
    table = np.array([group_of[name] for name in names], np.int64)
    return np.asarray(table[numbers(encoded.indices, np.int64)], np.int64)


def _certified(
    images: pa.Table, detect: pa.Table, segment: pa.Table, score: pa.Table, certification: Certification
) -> tuple[Floats, _Decide]:
    p_correct = probabilities(detect, segment, score, certification)
    kept = kept_for_fitting(images, detect, certification)
    return p_correct, lambda group, rows: decide_by_probability(group, p_correct[rows], kept[rows])


def _by_the_user(*tables: pa.Table) -> _Decide:
    signals = user_signals(*tables)
    return lambda group, rows: decide_by_thresholds(group, {name: signals[name][rows] for name in signals})


def _group_by_group(policy: Policy, groups: NDArray[np.int64], decide: _Decide) -> tuple[NDArray[np.bool_], Any]:
    accepted = np.zeros(len(groups), np.bool_)
    pieces, rows = [], []
    for index, group in enumerate(policy.groups):
        chosen = np.flatnonzero(groups == index)
        if len(chosen):
            accepted[chosen], reasons = decide(group, chosen)
            pieces.append(reasons)
            rows.append(chosen)
    # Group by group, then back to the order of the labels.
    reasons = pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())
    order = np.argsort(np.concatenate(rows), kind="stable") if rows else np.zeros(0, np.int64)
    return accepted, reasons.take(pa.array(order))
