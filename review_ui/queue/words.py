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


Rule = Callable[[Signals], Reason | None]


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


def _detector_torn(signals: Signals) -> Reason | None:
    margin, other = _number(signals, "detector_margin"), signals.get("runner_up")
    if margin is None or not other:
        return None
    return Reason((CLOSE - margin) / CLOSE / 2, f"the detector would nearly say {other}")


def _tiny(signals: Signals) -> Reason | None:
    area = _number(signals, "relative_area")
    if area is None:
        return None
    return Reason((TINY - area) / TINY / 2, f"it is small: {area:.3%} of the image")


def _beyond(column: str, limit: float, worst: float, words: str) -> Rule:
    """A rule about one signal: nothing at its limit, and as strong as can be at its worst."""

    def rule(signals: Signals) -> Reason | None:
        value = _number(signals, column)
        return None if value is None else Reason((limit - value) / (limit - worst), f"{words}: {value:.2f}")

    return rule


_RULES: Final[tuple[Rule, ...]] = (
    _clip_prefers,
    _detector_torn,
    _beyond("detector_score", UNSURE_SCORE, 0, "the detector is unsure"),
    _beyond("crowding", CROWDED, 1, "another label overlaps it"),
    _beyond("mask_box_iou", LOOSE_MASK, 0, "the mask fills little of the box"),
    _beyond("sam_iou", UNSURE_MASK, 0, "SAM is unsure of the mask"),
    _beyond("mask_stability", UNSURE_MASK, 0, "the mask's edge is vague"),
    _tiny,
)


def _sure(signals: Signals) -> str:
    score, clip = _number(signals, "detector_score"), _number(signals, "clip_probability")
    said = [f"{who} {value:.2f}" for who, value in (("detector", score), ("CLIP", clip)) if value is not None]
    return f"the models agree: {', '.join(said)}" if said else ""


def _number(signals: Signals, name: str) -> float | None:
    value = signals.get(name)
    return None if value is None or math.isnan(value) else float(value)
