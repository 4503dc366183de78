"""Checks the verdicts of a Parquet file column by column, which takes a hundredth of the time of row by row.

Rows that are plainly verdicts are taken; all others are left to `row_checks`, which alone says what is wrong with one.
"""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.reviews import IMAGE_VERDICTS, VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import numbers
from vouch_labels.tasks.reviews.read_file import python_values
from vouch_labels.tasks.reviews.row_checks import (
    CLOCKS_DIFFER,
    FIRST_YEAR,
    LARGEST,
    RowChecker,
    RowError,
    switch_of,
    verdict_of,
)

Bools = NDArray[np.bool_]

_SPACE: Final = "".join(filter(str.isspace, map(chr, range(0x3001))))
"""What str.strip takes off."""


class CheckedColumns(NamedTuple):
    """What became of N rows."""

    verdicts: pa.Table
    """The T rows that are plainly verdicts, as rows of schemas.reviews.VERDICTS."""
    taken: Bools
    """(N,) which they are."""
    unanswered: Bools
    """(N,) rows without a verdict. All others are left to be checked one by one."""


def check_columns(columns: Mapping[str, pa.Array], rows: int, checker: RowChecker) -> CheckedColumns:
    """Check some columns of a table, by name, of N rows each; a column that is not there is empty."""
    given = {name: columns.get(name, pa.nulls(rows)) for name in VERDICTS.names}
    fine = np.ones(rows, np.bool_)

    def take(found: tuple[pa.Array, Bools]) -> pa.Array:
        column, plain = found
        np.logical_and(fine, plain, out=fine)
        return column

    verdict, plain = _mapped(given["verdict"], verdict_of, pa.string())
    unanswered = plain & ~_there(verdict)
    fine &= plain & ~unanswered
    found = {
        "verdict": verdict,
        "label_id": take(_text(given["label_id"])),
        "key": take(_text(given["key"])),
        "class_name": take(_mapped(given["class_name"], checker.class_of, pa.string())),
        "reviewer": take(_text(given["reviewer"])).fill_null(checker.reviewer),
        "reviewed_at": take(_time(given["reviewed_at"], checker)),
        "simulated": take(_mapped(given["simulated"], switch_of, pa.bool_())).fill_null(False),
        "rle_counts": pa.nulls(rows, pa.binary()),
    }
    for name in ("seconds", *BOX):
        found[name] = take(_number(given[name]))
    fine &= ~_there(given["rle_counts"])
    with np.errstate(invalid="ignore"):
        fine &= ~(numbers(found["seconds"], np.float64) < 0)
    fine &= _whole(found)
    verdicts = pa.table({name: found[name] for name in VERDICTS.names}).filter(pa.array(fine)).cast(VERDICTS)
    return CheckedColumns(verdicts, fine, unanswered)


def _whole(found: Mapping[str, pa.Array]) -> Bools:
    """Rows that have what their verdict needs, and a box that is one."""
    sides = np.stack([numbers(found[side], np.float32) for side in BOX], axis=1)
    there = ~np.isnan(sides)
    has_box = there.all(axis=1)
    with np.errstate(invalid="ignore"):
        is_box = (sides[:, :2] < sides[:, 2:]).all(axis=1)
    about_image = numbers(pc.is_in(found["verdict"], value_set=pa.array(IMAGE_VERDICTS)), np.bool_)
    has_id, has_key = _there(found["label_id"]), _there(found["key"])
    missed = numbers(pc.equal(found["verdict"], "missed").fill_null(False), np.bool_)
    subject = np.where(about_image, ~has_id & has_key, has_id)
    needs = np.where(missed, has_box & _there(found["class_name"]), ~about_image | ~has_box)
    fine: Bools = subject & needs & np.where(has_box, is_box, ~there.any(axis=1))
    return fine


def _there(column: pa.Array) -> Bools:
    found: Bools = numbers(column.is_valid(), np.bool_)
    return found


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _text(column: pa.Array) -> tuple[pa.Array, Bools]:
    """Text without spaces around it, null where it is empty; not plain where it is no text."""
    column = _plain(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return pa.nulls(len(column), pa.string()), ~_there(column)
    text = pc.utf8_trim(column.cast(pa.string()), characters=_SPACE)
    return pc.if_else(pc.equal(text, ""), None, text), np.ones(len(column), np.bool_)


def _mapped(column: pa.Array, meaning: Callable[[Any], Any], kind: pa.DataType) -> tuple[pa.Array, Bools]:
    """What a function makes of every value, called for each distinct one alone; not plain where it refuses it."""
    try:
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # lists and other things that no cell should hold
        return pa.nulls(len(column), kind), ~_there(column)
    values, known = [], []
    for value in python_values(coded.dictionary):
        try:
            values.append(meaning(value))
            known.append(True)
        except RowError:
            values.append(None)
            known.append(False)
    places = coded.indices
    plain = numbers(pa.array([*known, True]).take(places.fill_null(len(known)).cast(pa.int64())), np.bool_)
    return pa.array(values, kind).take(places.cast(pa.int64())), plain


def _number(column: pa.Array) -> tuple[pa.Array, Bools]:
    """Numbers, null where not a number; not plain where a value is no number or out of bounds."""
    column = _plain(column)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return pa.nulls(len(column), pa.float64()), ~_there(column)
    values = numbers(column, np.float64)
    with np.errstate(invalid="ignore"):
        plain = ~(np.abs(values) > LARGEST)
    values = np.where(plain, values, np.nan)
    return pa.array(values, pa.float64(), mask=np.isnan(values)), plain


def _time(column: pa.Array, checker: RowChecker) -> tuple[pa.Array, Bools]:
    """Times in UTC, those that are missing filled in; not plain where they are none, or cannot be."""
    kind, missing = pa.timestamp("us", tz="UTC"), pa.scalar(checker.reviewed_at, pa.timestamp("us", tz="UTC"))
    column = _plain(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column, _ = _text(column)
        column = _parsed(column)
    if not pa.types.is_timestamp(column.type):
        return pa.nulls(len(column), kind).fill_null(missing), ~_there(column)
    try:
        # Nanoseconds have no place in Python's datetime; seconds may be too many for microseconds.
        times = column.cast(pa.timestamp("us", tz=column.type.tz), safe=column.type.unit != "ns")
    except pa.ArrowInvalid:
        return pa.nulls(len(column), kind).fill_null(missing), ~_there(column)
    # Without a time zone they are UTC.
    ticks = numbers(times.cast(pa.int64()).fill_null(0), np.int64)
    first = np.datetime64(f"{FIRST_YEAR}-01-01", "us").astype(np.int64)
    last = np.datetime64((checker.now + CLOCKS_DIFFER).astimezone(UTC).replace(tzinfo=None), "us").astype(np.int64)
    there = _there(times)
    plain: Bools = ~there | ((ticks >= first) & (ticks <= last))
    made = pa.array(np.where(plain, ticks, 0), pa.int64(), mask=~there).cast(kind)
    return made.fill_null(missing), plain


def _parsed(column: pa.Array) -> pa.Array:
    """Times of a text column where all are ISO 8601, with a time zone or all without; the column itself otherwise."""
    for zone in ("UTC", None):
        try:
            return column.cast(pa.timestamp("us", tz=zone))
        except pa.ArrowInvalid:
            continue
    return column
