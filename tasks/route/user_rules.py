"""Decides by the thresholds that users set on signals."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.campaign import SIGNALS
from schemas.policy import Group
from tasks.arrow import numbers

NOT_ALLOWED: Final = "no threshold allows this class"
_MOST_DECIMALS: Final = 6


def user_signals(*tables: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Every signal that a user can ask for and the tables have, (N,) each, null as NaN."""
    return {
        name: numbers(table[name], np.float32) for table in tables for name in SIGNALS if name in table.column_names
    }


def decide_by_thresholds(group: Group, signals: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.bool_], Any]:
    """Decide on M labels of one group; `route` states the rule.

    Args:
        group: Its `accept`.
        signals: (M,) each.

    Returns:
        Accepted, (M,), and the reasons, M strings.
    """
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


def _complaints(name: str, values: NDArray[np.float32], least: float, holds: NDArray[np.bool_]) -> pa.Array:
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
