"""Says in words what the signals of a label show: the same rule for every label, whatever it is asked for."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

MOST: Final = 2
"""Reasons that are named."""
UNSURE_SCORE: Final = 0.5
"""Below this the detector counts as unsure."""
CLOSE: Final = 0.15
"""Within this of another class, a class counts as hardly told from it."""
LOOSE_MASK: Final = 0.7
"""Below this IoU of the box and the mask's own box, the mask does not fill the box."""
UNSURE_MASK: Final = 0.8
"""Below this IoU as SAM predicts it, the mask counts as unsure; and below this IoU of the mask cut higher and lower."""
CROWDED: Final = 0.5
"""Above this IoU with another label, both may show one object."""
TINY: Final = 0.0005
"""Below this share of the image, an object is hard to see."""

Signals = Mapping[str, Any]
"""Columns of the detect, segment and score tables of one label; null or NaN where missing."""


class Reason(NamedTuple):
    """What a signal says against a label."""

    weight: float
    """0 is nothing; 1 is as much as the signal can say."""
    words: str


def words_of(signals: Signals, renamed: Mapping[str, str] | None = None) -> str:
    """Word the one or two strongest reasons to look at a label; how sure the models are, where none is strong.

    Nothing but signals goes in, so the words cannot tell what was decided, nor why the label is asked about.

    Args:
        signals: Of the label.
        renamed: Class -> the class to say in its place.

    Returns:
        One line; empty without a signal.
    """
    told = dict(signals)
    for name in ("runner_up", "clip_other"):
        told[name] = (renamed or {}).get(told.get(name) or "", told.get(name))
    reasons = [reason for rule in _RULES if (reason := rule(told)) is not None and reason.weight > 0]
    # A stable sort: of equal weights the first rule goes first.
    strongest = sorted(reasons, key=lambda reason: -reason.weight)[:MOST]
    return "; ".join(reason.words for reason in strongest) or _sure(told)


def presence_words(class_name: str, presence: float) -> str:
    """Word why one class is looked for in an image."""
    return f"CLIP sees {class_name}: {presence:.2f}"


def _clip_prefers(signals: Signals) -> Reason | None:
    margin, other = _number(signals, "clip_margin"), signals.get("clip_other")
    mine, theirs = _number(signals, "clip_probability"), _number(signals, "clip_other_probability")
    if margin is None or mine is None or theirs is None or not other:
        return None
    if margin < 0:
        return Reason(0.5 - margin / 2, f"CLIP prefers {other}: {theirs:.2f} against {mine:.2f}")
    return Reason((CLOSE - margin) / CLOSE / 2, f"CLIP hardly tells it from {other}: {mine:.2f} against {theirs:.2f}")


def _detector_unsure(signals: Signals) -> Reason | None:
    score = _number(signals, "detector_score")
    if score is None:
        return None
    return Reason((UNSURE_SCORE - score) / UNSURE_SCORE, f"the detector is unsure: {score:.2f}")


def _detector_torn(signals: Signals) -> Reason | None:
    margin, other = _number(signals, "detector_margin"), signals.get("runner_up")
    if margin is None or not other:
        return None
    return Reason((CLOSE - margin) / CLOSE / 2, f"the detector would nearly say {other}")


def _mask_loose(signals: Signals) -> Reason | None:
    fit = _number(signals, "mask_box_iou")
    if fit is None:
        return None
    return Reason((LOOSE_MASK - fit) / LOOSE_MASK, f"the mask fills little of the box: {fit:.2f}")


def _mask_unsure(signals: Signals) -> Reason | None:
    iou = _number(signals, "sam_iou")
    if iou is None:
        return None
    return Reason((UNSURE_MASK - iou) / UNSURE_MASK, f"SAM is unsure of the mask: {iou:.2f}")


def _mask_frays(signals: Signals) -> Reason | None:
    stability = _number(signals, "mask_stability")
    if stability is None:
        return None
    return Reason((UNSURE_MASK - stability) / UNSURE_MASK, f"the mask's edge is vague: {stability:.2f}")


def _crowded(signals: Signals) -> Reason | None:
    crowding = _number(signals, "crowding")
    if crowding is None:
        return None
    return Reason((crowding - CROWDED) / (1 - CROWDED), f"another label overlaps it: {crowding:.2f}")


def _tiny(signals: Signals) -> Reason | None:
    area = _number(signals, "relative_area")
    if area is None:
        return None
    return Reason((TINY - area) / TINY / 2, f"it is small: {area:.3%} of the image")


_RULES: Final[tuple[Callable[[Signals], Reason | None], ...]] = (
    _clip_prefers,
    _detector_torn,
    _detector_unsure,
    _crowded,
    _mask_loose,
    _mask_unsure,
    _mask_frays,
    _tiny,
)


def _sure(signals: Signals) -> str:
    score, clip = _number(signals, "detector_score"), _number(signals, "clip_probability")
    said = [f"{who} {value:.2f}" for who, value in (("detector", score), ("CLIP", clip)) if value is not None]
    return f"the models agree: {', '.join(said)}" if said else ""


def _number(signals: Signals, name: str) -> float | None:
    value = signals.get(name)
    return None if value is None or math.isnan(value) else float(value)
