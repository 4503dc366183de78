"""Routes labels: applies a policy to the signals of many labels at once, and says why each is accepted or reviewed.

User rules are thresholds on signals; certified rules are the least probability of being correct that reviewed samples
allow.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import SIGNALS
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.schemas.policy import Certification, Group, Policy
from vouch_labels.schemas.tables import DECISIONS
from vouch_labels.tasks.arrow import flat, numbers
from vouch_labels.tasks.policy import Coverage, among, label_numbers
from vouch_labels.tasks.statistics.bounds import Bools, Floats
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.sampling import on_fit_side

ACCEPT: Final = "accept"
REVIEW: Final = "review"

_Decide: TypeAlias = Callable[[Group, NDArray[np.int64]], tuple[NDArray[np.bool_], Any]]
"""Decides on the labels of a group, given by their rows: accepted, and the reasons."""

NOT_ALLOWED: Final = "no threshold allows this class"
_MOST_SIGNAL_DECIMALS: Final = 6

NOT_CERTIFIED: Final = "no certified threshold for this class"
KEPT_FOR_FITTING: Final = "image kept for fitting the calibrator"
OUTSIDE: Final = "outside the certificate: no sample of such labels was reviewed yet"
KNOWN: Final = "people have looked at it"
MISSING: Final = "p_correct missing"
_P_DECIMALS: Final = 3
_MOST_P_DECIMALS: Final = 9


def route(
    images: pa.Table,
    detect: pa.Table,
    segment: pa.Table,
    score: pa.Table,
    policy: Policy,
    covered: Coverage | None = None,
) -> pa.Table:
    """Decide on every label: accept, or review with the reason.

    By a certified policy a label is accepted when its class has a certified threshold, the probability of being correct
    that the policy's calibrator gives it is finite and at or above that threshold, both float32's values, and the
    certificate covers it. Reasons, the first that applies:

    - review: "no certified threshold for this class"
    - review: "image kept for fitting the calibrator", by policies of before 2026-12 alone
    - review: "p_correct missing"
    - review: "outside the certificate: no sample of such labels was reviewed yet", or "people have looked at it" where
      they had when the certificate was made; of labels that would be accepted
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
        covered: As `tasks.policy.read_coverage` gives it for the policy.

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
        p_correct = probabilities(detect, segment, score, policy.certification)
        kept = kept_for_fitting(images, detect, policy.certification)
        labels = label_numbers(ids)
        inside = np.ones(len(ids), np.bool_) if covered is None else among(labels, covered.labels)
        known = np.zeros(len(ids), np.bool_) if covered is None else among(labels, covered.known) & ~inside

        def decide(group: Group, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Any]:
            return decide_by_probability(group, p_correct[rows], kept[rows], inside[rows], known[rows])
    else:
        p_correct = np.full(len(ids), np.nan)
        signals = user_signals(detect, segment, score)

        def decide(group: Group, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Any]:
            return decide_by_thresholds(group, {name: signals[name][rows] for name in signals})

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


def user_signals(*tables: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Every signal that a user can ask for and the tables have, (N,) each, null as NaN."""
    return {
        name: numbers(table[name], np.float32) for table in tables for name in SIGNALS if name in table.column_names
    }


def decide_by_thresholds(group: Group, signals: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.bool_], Any]:
    """Decide on M labels of one group by (M,) signals; `route` states the rule. Accepted, (M,), and M reasons."""
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
    holding = ", ".join(f"{name} >= {least:.{_signal_decimals(least)}f}" for name, least in rule.items())
    return accepted, pc.if_else(pa.array(accepted), holding, review)


def _complaints(name: str, values: NDArray[np.float32], least: float, holds: NDArray[np.bool_]) -> pa.Array:
    """What is wrong with one signal of each label, null where nothing is."""
    decimals = _signal_decimals(least)
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


def _signal_decimals(least: float) -> int:
    """Digits after the point that show a threshold as the user wrote it, two at least."""
    digits = f"{least:.{_MOST_SIGNAL_DECIMALS}f}".rstrip("0").partition(".")[2]
    return max(2, len(digits))


def probabilities(detect: pa.Table, segment: pa.Table, score: pa.Table, certification: Certification) -> Floats:
    """Probability of each of N labels that it is correct, by the policy's calibrator.

    The three tables are row for row of the same labels; only `class_name` and the signals that the calibrator names are
    looked at.

    Returns:
        (N,) in [0, 1], float32's values as float64; NaN where the calibrator has none.

    Raises:
        UserError: The calibrator is damaged or asks for a signal that the tables do not have.
    """
    calibrator = Calibrator.from_dict(certification.calibrator)
    columns = []
    for name in calibrator.signals:
        holder = next((table for table in (detect, segment, score) if name in table.column_names), None)
        if holder is None:
            raise UserError(f"the policy's calibrator asks for the signal {name!r}, which labels do not have")
        columns.append(numbers(holder[name], np.float32))
    signals = np.stack(columns, axis=1) if columns else np.zeros((detect.num_rows, 0), np.float32)
    classes = flat(detect["class_name"]).dictionary_encode()
    indices = numbers(classes.indices, np.int64)
    return calibrator.probabilities(signals, indices, tuple(classes.dictionary.to_pylist()))


def kept_for_fitting(images: pa.Table, detect: pa.Table, certification: Certification) -> Bools:
    """Whether each label's image is on the side whose verdicts train the calibrator, (N,).

    Raises:
        VouchError: A label's image is not among the images.
    """
    if not certification.fit_share:
        return np.zeros(detect.num_rows, np.bool_)
    places = pc.index_in(flat(detect["key"]), value_set=flat(images["key"]))
    if places.null_count:
        raise VouchError("labels and images of a shard do not belong together; run the shard again")
    used, of_label = np.unique(numbers(places, np.int64), return_inverse=True)
    contents = flat(images["sha256"]).take(pa.array(used)).to_pylist()
    sides = on_fit_side(contents, certification.fit_share, certification.seed)
    return np.asarray(sides[of_label.reshape(-1)], np.bool_)


def decide_by_probability(
    group: Group, p_correct: Floats, kept: Bools, inside: Bools, known: Bools
) -> tuple[NDArray[np.bool_], Any]:
    """Decide on M labels of one group; `route` states the rule. Accepted, (M,), and M reasons.

    `p_correct` (M,) are float32's values, NaN where there is none; `kept` (M,) are images kept for fitting; `inside`
    (M,) are labels that the certificate covers, `known` (M,) others that people had looked at when it was made.
    """
    least = group.p_correct
    if least is None:
        return np.zeros(len(p_correct), np.bool_), pa.repeat(pa.scalar(NOT_CERTIFIED, pa.string()), len(p_correct))
    finite = np.isfinite(p_correct)
    with np.errstate(invalid="ignore"):
        enough = finite & (p_correct >= least)
    accepted = enough & ~kept & inside
    shown = np.where(finite & ~kept, _cut(p_correct, finite, enough, least), -1)
    distinct, codes = np.unique(shown, return_inverse=True)
    decimals = _p_decimals(least)
    unit, cut_least = 10**decimals, _floor(least, decimals)
    texts = [
        f"p_correct {value / unit:.{decimals}f} {'>=' if value >= cut_least else '<'} {cut_least / unit:.{decimals}f}"
        for value in distinct.tolist()
    ]
    codes = np.where(finite, codes.reshape(-1), len(texts) + 1)
    codes = np.where(enough & ~inside, np.where(known, len(texts) + 3, len(texts) + 2), codes)
    codes = np.where(kept, len(texts), codes)
    return accepted, pa.array([*texts, KEPT_FOR_FITTING, MISSING, OUTSIDE, KNOWN], pa.string()).take(pa.array(codes))


def _cut(p_correct: Floats, finite: Bools, enough: Bools, least: float) -> NDArray[np.int64]:
    """Probabilities in units of the last digit shown, (M,): those below the threshold read as below it."""
    decimals = _p_decimals(least)
    cut = np.floor(np.where(finite, p_correct, 0) * 10**decimals + 1e-3).astype(np.int64)
    return np.asarray(np.where(enough, cut, np.minimum(cut, _floor(least, decimals) - 1)), np.int64)


def _floor(least: float, decimals: int) -> int:
    # The small addition makes float32's 0.91199999 read as 0.912.
    return int(np.floor(least * 10**decimals + 1e-3))


def _p_decimals(least: float) -> int:
    """Digits after the point: three, or as many as tell a small threshold from 0."""
    wanted = range(_P_DECIMALS, _MOST_P_DECIMALS)
    return (
        next((decimals for decimals in wanted if _floor(least, decimals)), _MOST_P_DECIMALS) if least else _P_DECIMALS
    )
