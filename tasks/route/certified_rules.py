"""Decides by the least probability of being correct that reviewed samples certified."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import UserError, VouchError
from schemas.policy import Certification, Group
from tasks.arrow import flat, numbers
from tasks.statistics.bounds import Bools, Floats
from tasks.statistics.calibrator import Calibrator
from tasks.statistics.sampling import on_fit_side

NOT_CERTIFIED: Final = "no certified threshold for this class"
KEPT_FOR_FITTING: Final = "image kept for fitting the calibrator"
MISSING: Final = "p_correct missing"
_DECIMALS: Final = 3
_MOST_DECIMALS: Final = 9


def probabilities(detect: pa.Table, segment: pa.Table, score: pa.Table, certification: Certification) -> Floats:
    """Give the probability of each label that it is correct, by the policy's calibrator.

    Args:
        detect: DETECTIONS, N rows, with `class_name`; of the three tables only signals that the calibrator names are
            looked at.
        segment: MASKS, row for row the same labels.
        score: SCORES, row for row the same labels.
        certification: Its calibrator.

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
    """Say of each label whether its image is on the side whose verdicts train the calibrator.

    Args:
        images: IMAGES, the columns `key` and `sha256`.
        detect: DETECTIONS, N rows, with `key`.
        certification: Its `fit_share` and `seed`.

    Returns:
        (N,)

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


def decide_by_probability(group: Group, p_correct: Floats, kept: Bools) -> tuple[NDArray[np.bool_], Any]:
    """Decide on M labels of one group; `route` states the rule.

    Args:
        group: Its `p_correct`, the least that is accepted.
        p_correct: (M,) float32's values, NaN where there is none.
        kept: (M,) whether the image is kept for fitting.

    Returns:
        Accepted, (M,), and the reasons, M strings.
    """
    least = group.p_correct
    if least is None:
        return np.zeros(len(p_correct), np.bool_), pa.repeat(pa.scalar(NOT_CERTIFIED, pa.string()), len(p_correct))
    finite = np.isfinite(p_correct)
    with np.errstate(invalid="ignore"):
        enough = finite & (p_correct >= least)
    accepted = enough & ~kept
    spoken = np.where(finite & ~kept, _cut(p_correct, finite, enough, least), -1)
    distinct, codes = np.unique(spoken, return_inverse=True)
    decimals = _decimals(least)
    unit, cut_least = 10**decimals, _floor(least, decimals)
    texts = [
        f"p_correct {value / unit:.{decimals}f} {'>=' if value >= cut_least else '<'} {cut_least / unit:.{decimals}f}"
        for value in distinct.tolist()
    ]
    codes = np.where(kept, len(texts), np.where(finite, codes.reshape(-1), len(texts) + 1))
    return accepted, pa.array([*texts, KEPT_FOR_FITTING, MISSING], pa.string()).take(pa.array(codes))


def _cut(p_correct: Floats, finite: Bools, enough: Bools, least: float) -> NDArray[np.int64]:
    """Probabilities in units of the last digit shown, (M,): those below the threshold read as below it."""
    decimals = _decimals(least)
    cut = np.floor(np.where(finite, p_correct, 0) * 10**decimals + 1e-3).astype(np.int64)
    return np.asarray(np.where(enough, cut, np.minimum(cut, _floor(least, decimals) - 1)), np.int64)


def _floor(least: float, decimals: int) -> int:
    # The small addition makes float32's 0.91199999 read as 0.912.
    return int(np.floor(least * 10**decimals + 1e-3))


def _decimals(least: float) -> int:
    """Digits after the point: three, or as many as tell a small threshold from 0."""
    wanted = range(_DECIMALS, _MOST_DECIMALS)
    return next((decimals for decimals in wanted if _floor(least, decimals)), _MOST_DECIMALS) if least else _DECIMALS
