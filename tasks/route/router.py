"""Applies a policy to the signals of many labels at once."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import UserError, VouchError
from schemas.policy import Group, Policy
from schemas.signals import SIGNALS
from schemas.tables import DECISIONS

ACCEPT: Final = "accept"
REVIEW: Final = "review"
NOT_ALLOWED: Final = "no threshold allows this class"
_MOST_DECIMALS: Final = 6


def route(detect: pa.Table, segment: pa.Table, score: pa.Table, policy: Policy) -> pa.Table:
    """Decide on every label: accept, or review with the reason.

    A label is accepted when its class has a rule and every signal that the rule asks for is finite and at or above its
    threshold, compared in float32, the precision of the columns. Reasons:

    - accept: the rule that holds, "clip_probability >= 0.60, sam_iou >= 0.80"
    - review: every signal that fails, in the order of `schemas.signals.SIGNALS`: "clip_probability 0.41 < 0.60",
      "sam_iou missing" for null, NaN or infinite; values are cut, not rounded, so that they read as less
    - review: "no threshold allows this class"

    Args:
        detect: DETECTIONS, N rows.
        segment: MASKS, row for row the same labels.
        score: SCORES, row for row the same labels.
        policy: A rule for every class that occurs.

    Returns:
        DECISIONS, N rows in the same order; p_correct is null.

    Raises:
        VouchError: The tables are not of the same labels in the same order.
        UserError: The policy has no rule for a class that occurs.
    """
    ids = _flat(detect["label_id"])
    for table in (segment, score):
        if not ids.equals(_flat(table["label_id"])):
            raise VouchError("the detections, masks and scores are not of the same labels; run the shard again")
    groups = _group_indices(_flat(detect["class_name"]), policy)
    signals = _signals(detect, segment, score)
    accepted = np.zeros(len(ids), np.bool_)
    pieces, rows = [], []
    for index, group in enumerate(policy.groups):
        chosen = np.flatnonzero(groups == index)
        if len(chosen):
            accepted[chosen], reasons = _decide(group, {name: signals[name][chosen] for name in signals})
            pieces.append(reasons)
            rows.append(chosen)
    # Group by group, then back to the order of the labels.
    reasons = pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())
    order = np.argsort(np.concatenate(rows), kind="stable") if rows else np.zeros(0, np.int64)
    return pa.table(
        [
            ids,
            pa.nulls(len(ids), pa.float32()),
            pc.if_else(pa.array(accepted), ACCEPT, REVIEW),
            reasons.take(pa.array(order)),
            pa.repeat(pa.scalar(policy.version, pa.string()), len(ids)),
        ],
        schema=DECISIONS,
    )


def _flat(column: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """One array of a chunked column."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _group_indices(classes: Any, policy: Policy) -> NDArray[np.int64]:  # noqa: ANN401 - pyarrow has no types
    """Index of each label's group, (N,)."""
    group_of = {name: index for index, group in enumerate(policy.groups) for name in group.classes}
    encoded = classes.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    unknown = [name for name in names if name not in group_of]
    if unknown:
        raise UserError(f"the policy {policy.version} has no rule for {', '.join(unknown)}; add one, or use another")
    table = np.array([group_of[name] for name in names], np.int64)
    return np.asarray(table[encoded.indices.to_numpy(zero_copy_only=False)], np.int64)


def _signals(*tables: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Every signal that the tables have, (N,) each, null as NaN."""
    found = {}
    for table in tables:
        for name in SIGNALS:
            if name in table.column_names:
                column = _flat(table[name]).cast(pa.float32())
                found[name] = np.asarray(column.to_numpy(zero_copy_only=False), np.float32)
    return found


def _decide(group: Group, signals: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.bool_], Any]:
    """Accepted (M,) and the reasons of M labels of one group."""
    count = len(next(iter(signals.values())))
    rule = group.accept.required() if group.accept is not None else {}
    if not rule:
        return np.zeros(count, np.bool_), pa.repeat(pa.scalar(NOT_ALLOWED, pa.string()), count)
    accepted = np.ones(count, np.bool_)
    review = pa.nulls(count, pa.string())
    for name, least in rule.items():
        values = signals[name]
        with np.errstate(invalid="ignore"):
            holds = np.isfinite(values) & (values >= np.float32(least))
        accepted &= holds
        complaint = _complaints(name, values, least, holds)
        # A join with a null is null, so of the two and their join the first that is there is the one wanted.
        review = pc.coalesce(pc.binary_join_element_wise(review, complaint, ", "), review, complaint)
    spoken = ", ".join(f"{name} >= {least:.{_decimals(least)}f}" for name, least in rule.items())
    return accepted, pc.if_else(pa.array(accepted), spoken, review)


def _complaints(name: str, values: NDArray[np.float32], least: float, holds: NDArray[np.bool_]) -> Any:  # noqa: ANN401
    """What is wrong with one signal of each label, null where nothing is."""
    decimals = _decimals(least)
    unit = 10**decimals
    finite = np.isfinite(values)
    # The small addition makes float32's 0.40999998 read as 0.41; the minimum keeps 0.5999999 below 0.60.
    cut = np.floor(np.where(finite, values, 0).astype(np.float64) * unit + 1e-3)
    cut = np.minimum(cut, round(least * unit) - 1).astype(np.int64)
    distinct, codes = np.unique(cut, return_inverse=True)
    texts = [f"{name} {value / unit:.{decimals}f} < {least:.{decimals}f}" for value in distinct.tolist()]
    codes = np.where(finite, codes.reshape(-1), len(texts))
    indices = pa.array(codes.astype(np.int64), mask=holds)
    return pa.array([*texts, f"{name} missing"], pa.string()).take(indices)


def _decimals(least: float) -> int:
    """Digits after the point that show a threshold as the user wrote it, two at least."""
    digits = f"{least:.{_MOST_DECIMALS}f}".rstrip("0").partition(".")[2]
    return max(2, len(digits))
