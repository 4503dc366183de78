"""Checks verdicts row by row: turns what other tools write into rows of schemas.reviews.VERDICTS, or says why not."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np

from vouch_labels.schemas.campaign import nearest
from vouch_labels.schemas.reviews import IMAGE_VERDICTS, LABEL_VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.reviews.read_file import VERDICT_KINDS
from vouch_labels.tasks.reviews.verdicts import mask_trouble

LARGEST: Final = 1e9
"""Pixels and seconds beyond it are no measurements, and float32 holds no whole numbers there."""
FIRST_YEAR: Final = 1970
CLOCKS_DIFFER: Final = timedelta(days=1)

_SWITCH: Final = {
    "true": True, "1": True, "yes": True, "wahr": True, "false": False, "0": False, "no": False, "falsch": False,
}  # fmt: skip
"""Excel writes true and false in the user's language."""
_SHOWN: Final = 60


@dataclass(frozen=True)
class RowChecker:
    """What rows are held against, and what stands in for what they leave empty."""

    class_names: Sequence[str]
    """Of the campaign."""
    reviewer: str
    """Where a row names none."""
    reviewed_at: datetime
    """Where a row gives no time, with a time zone."""
    now: datetime
    """With a time zone; later verdicts than this cannot be."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name that labels carry -> present name, of renamed classes; files may have either."""
    _folded: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the look-up of classes, whose names differ by more than case."""
        self._folded.update({name.casefold(): name for name in self.class_names})
        self._folded.update({shown.casefold(): name for name, shown in self.names.items()})

    def check(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Turn a row into a row of schemas.reviews.VERDICTS; None if it has no verdict.

        Raises:
            RowError: It is no verdict.
        """
        verdict = verdict_of(row.get("verdict"))
        if verdict is None:
            return None
        found = {
            "label_id": _text("label_id", row.get("label_id")),
            "key": _text("key", row.get("key")),
            "verdict": verdict,
            "class_name": self.class_of(row.get("class_name")),
            **dict(zip(BOX, _box([row.get(side) for side in BOX]), strict=True)),
            "reviewer": _text("reviewer", row.get("reviewer")) or self.reviewer,
            "seconds": _number("seconds", row.get("seconds")),
            "reviewed_at": self._time(row.get("reviewed_at")),
            "simulated": switch_of(row.get("simulated")),
            "rle_counts": _mask(row.get("rle_counts")),
        }
        _check_whole(found)
        return found

    def class_of(self, value: object) -> str | None:
        """Give the class of the campaign that a cell names; None where it is empty.

        Raises:
            RowError: There is no such class.
        """
        name = _text("class_name", value)
        if name is None or name.casefold() in self._folded:
            return name and self._folded[name.casefold()]
        meant = self._folded.get(nearest(name.casefold(), self._folded), "")
        hint = f"did you mean {self.names.get(meant, meant)!r}?" if meant else "name one of them"
        raise RowError(f"{_quoted(name)} is no class of the campaign; {hint}")

    def _time(self, value: object) -> datetime:
        if (
            value is None
            or (isinstance(value, str) and not value.strip())
            or (isinstance(value, float) and math.isnan(value))
        ):
            return self.reviewed_at
        time = value
        if isinstance(value, str):
            with suppress(ValueError):
                time = datetime.fromisoformat(value.strip())
        if not isinstance(time, datetime) or time.year < FIRST_YEAR:
            raise RowError(f"reviewed_at: {_quoted(value)} is no time; write it as 2026-03-04T05:06:07Z")
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        if time > self.now + CLOCKS_DIFFER:
            raise RowError(f"reviewed_at: {time.isoformat()} is yet to come; it would outdo every later verdict")
        return time


class RowError(Exception):
    """Why a row is no verdict."""


def _check_whole(row: Mapping[str, Any]) -> None:
    verdict, has_box = row["verdict"], row["x0"] is not None
    if verdict in LABEL_VERDICTS and row["label_id"] is None:
        raise RowError(f"{verdict} needs a label_id")
    if verdict in IMAGE_VERDICTS and row["label_id"] is not None:
        raise RowError(f"{verdict} is about an image: leave label_id empty, and give the image's key")
    if verdict in IMAGE_VERDICTS and row["key"] is None:
        raise RowError(f"{verdict} needs the image's key")
    if verdict == "missed" and (not has_box or row["class_name"] is None):
        raise RowError("missed needs the object's class_name and its box x0, y0, x1, y1")
    if verdict == "checked" and has_box:
        raise RowError("checked has no box; an object that no label shows is missed")
    if row["rle_counts"] is not None:
        _check_mask(row)
    if row["seconds"] is not None and row["seconds"] < 0:
        raise RowError(f"seconds: {row['seconds']:g} is less than 0")


def _check_mask(row: Mapping[str, Any]) -> None:
    verdict = row["verdict"]
    if verdict == "checked":
        raise RowError("checked has no mask; an object that no label shows is missed")
    if verdict == "wrong_class" and row["class_name"] is None:
        raise RowError("wrong_class with a mask needs the right class_name as well")
    if verdict == "bad_box" and row["x0"] is None:
        raise RowError("bad_box with a mask needs the right box x0, y0, x1, y1 as well; correct keeps the box that is")
    if verdict != "not_an_object" and (problem := mask_trouble(row["rle_counts"])):
        raise RowError(f"rle_counts: {problem}")


def verdict_of(value: object) -> str | None:
    """Give the kind of verdict that a cell names; None where it is empty.

    Raises:
        RowError: It names none.
    """
    given = _text("verdict", value)
    if given is None:
        return None
    name = re.sub(r"[\s_-]+", "_", given.casefold())
    if name in VERDICT_KINDS:
        return name
    near = nearest(name, VERDICT_KINDS)
    hint = f"did you mean {near}?" if near else f"use {', '.join(VERDICT_KINDS)}"
    raise RowError(f"{_quoted(given)} is no verdict; {hint}")


def _box(values: list[object]) -> list[float | None]:
    sides = [_number(name, value) for name, value in zip(BOX, values, strict=True)]
    if all(side is None for side in sides):
        return sides
    if any(side is None for side in sides):
        missing = ", ".join(name for name, side in zip(BOX, sides, strict=True) if side is None)
        raise RowError(f"the box lacks {missing}")
    # As they will be kept: sides that differ by less than float32 can say enclose nothing.
    x0, y0, x1, y1 = np.array(sides, np.float32)
    if not (x0 < x1 and y0 < y1):
        raise RowError(f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} is empty or inside out; x0 < x1 and y0 < y1")
    return sides


def _number(name: str, value: object) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    # A boolean is an integer to Python alone.
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise RowError(f"{name}: {_quoted(value)} is no number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise RowError(f"{name}: {_quoted(value)} is no number") from None
    if math.isnan(number) and isinstance(value, float):
        return None  # as data frames spell what is missing
    if not abs(number) <= LARGEST:
        raise RowError(f"{name}: {_quoted(value)} is no number up to {LARGEST:.0e}")
    return number


def _mask(value: object) -> bytes | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | bytes):
        raise RowError(f"rle_counts: {_quoted(value)} is no text; write the counts of a compressed COCO RLE")
    try:
        return (value.encode("ascii") if isinstance(value, str) else value).strip() or None
    except UnicodeEncodeError:
        raise RowError("rle_counts: the mask is no compressed COCO RLE, which is ASCII") from None


def _text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"{name}: {_quoted(value)} is no text")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can spell
        raise RowError(f"{name}: {_quoted(text)} is not valid Unicode") from None
    return text or None


def switch_of(value: object) -> bool:
    """Give what a cell of `simulated` says; empty is false.

    Raises:
        RowError: It says neither.
    """
    known = _SWITCH.get(str(value).strip().casefold(), value if value not in (None, "") else False)
    if not isinstance(known, bool):
        raise RowError(f"simulated: {_quoted(value)} is neither true nor false")
    return known


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
