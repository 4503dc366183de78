"""Figures in the form that people read."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from markupsafe import Markup

NONE: Final = "\u2013"
"""Stands where there is no figure."""


def count(value: int | None) -> str:
    """Thousands apart; a dash where there is no figure."""
    return NONE if value is None else f"{value:,}"


def plural(value: int, thing: str) -> str:
    """Say how many of a thing there are."""
    return f"{value:,} {thing}{'' if value == 1 else 's'}"


def pct(share: float | None) -> str:
    """A share in percent; a dash where there is none. All but 100% is never written as 100%, nor more than 0 as 0%."""
    if share is None or math.isnan(share):
        return NONE
    words = f"{100 * share:.1f}".removesuffix(".0")
    if (words == "100" and share < 1) or (words == "0" and share > 0):
        return f"{100 * share:.3g}%" if words == "0" else f"{math.floor(100_000 * share) / 1000:g}%"
    return f"{words}%"


def share(value: float | None) -> str:
    """A share in percent with its tenths, so that those of a column stand below each other."""
    words = pct(value)
    return words if value is None or "." in words or words in ("0%", "100%", NONE) else f"{words[:-1]}.0%"


def least(share: float) -> str:
    """A lower bound in percent, cut, so that it never reads as more."""
    return f"{math.floor(1000 * share + 1e-9) / 10:g}%"


def most(share: float) -> str:
    """An upper bound in percent, raised to the next tenth, so that it never reads as less."""
    return f"{math.ceil(1000 * share - 1e-9) / 10:g}%"


def cut(value: float) -> str:
    """A threshold with three digits, cut, so that it never reads as stricter than it is."""
    return f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{minutes / 60:,.1f} h"


def when(moment: str) -> str:
    """Date and time of an ISO 8601 string."""
    found = datetime.fromisoformat(moment)
    return f"{found.day} {found:%B %Y, %H:%M} UTC"


def day(moment: str) -> str:
    """Date of an ISO 8601 string."""
    found = datetime.fromisoformat(moment)
    return f"{found.day} {found:%B %Y}"


def some(names: Sequence[str], shown: int) -> str:
    """The first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def prose(text: str) -> Markup:
    """A sentence with `commands` set as code; everything in it is escaped."""
    parts = text.rstrip(".").split("`")
    parts[0] = parts[0][:1].upper() + parts[0][1:]
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if place % 2 else part for place, part in enumerate(parts)) + "."


def rule(text: str) -> str:
    """A rule or reason as stored, in a reader's words."""
    words = text.replace("p_correct", "p(correct)").replace("_", " ").replace(">=", "\u2265")
    for name, spoken in (("clip ", "CLIP "), ("sam iou", "SAM IoU"), ("iou ", "IoU ")):
        words = words.replace(name, spoken)
    return words


_ALL: Final = (count, plural, pct, share, least, most, cut, duration, when, day, some, prose, rule)
FILTERS: Final[dict[str, Callable[..., Any]]] = {function.__name__: function for function in _ALL}
