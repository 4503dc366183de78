"""Columns are checked as rows are: what is taken is what the check of rows makes of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.reviews.column_checks import check_columns
from vouch_labels.tasks.reviews.read_file import python_values
from vouch_labels.tasks.reviews.row_checks import RowChecker, RowError

NOW = datetime(2026, 3, 4, tzinfo=UTC)
CHECKER = RowChecker(("cat", "Überwurf 螺母"), "ann", NOW - timedelta(days=7), NOW)

TIMES = st.none() | st.datetimes(datetime(1960, 1, 1), datetime(2026, 3, 9))
NUMBERS = st.none() | st.sampled_from([0.0, 1.0, 2.5, 40.0, -1.0, 1e10, float("nan"), float("inf")])
COLUMNS = {
    "label_id": (pa.string(), st.sampled_from([None, "", " l0 ", "l1", "\u2003x"])),
    "key": (pa.string(), st.sampled_from([None, "a.png", " ", "ü/b.png"])),
    "verdict": (
        pa.string(),
        st.sampled_from(["correct", "Bad Box", "wrong_class", "missed", "checked", "corect", "", None]),
    ),
    "class_name": (pa.string(), st.sampled_from([None, "cat", "CAT", "überwurf 螺母", "dog", ""])),
    "x0": (pa.float64(), NUMBERS),
    "y0": (pa.float32(), NUMBERS),
    "x1": (pa.float64(), NUMBERS),
    "y1": (pa.int64(), st.sampled_from([None, 0, 3, 50, 2**40])),
    "reviewer": (pa.string(), st.sampled_from([None, "bob", " "])),
    "seconds": (pa.float32(), NUMBERS),
    "reviewed_at": (pa.timestamp("ns"), TIMES),
    "simulated": (pa.bool_(), st.sampled_from([None, True, False])),
    "rle_counts": (pa.string(), st.sampled_from([None, None, "", "6230>", "abc"])),
}


def by_row(columns):
    """What the rows' check makes of every row: a verdict, None, or the word refused."""
    names = list(columns)
    rows = zip(*(python_values(columns[name]) for name in names), strict=True)
    found: list[Any] = []
    for row in rows:
        try:
            one = CHECKER.check(dict(zip(names, row, strict=True)))
        except RowError:
            found.append("refused")
            continue
        found.append(one and pa.Table.from_pylist([one], schema=VERDICTS).to_pylist()[0])
    return found


def held(columns):
    count = len(next(iter(columns.values())))
    found = check_columns(columns, count, CHECKER)
    taken = iter(found.verdicts.to_pylist())
    for place, expected in enumerate(by_row(columns)):
        if found.taken[place]:
            assert next(taken) == expected
        elif found.unanswered[place]:
            assert expected is None
    return found


@given(st.data(), st.sets(st.sampled_from(list(COLUMNS))), st.integers(1, 6))
def test_columns_and_rows_agree(data, names, count):
    columns = {}
    for name in sorted(names | {"verdict"}):
        kind, values = COLUMNS[name]
        columns[name] = pa.array(data.draw(st.lists(values, min_size=count, max_size=count)), kind)
    held(columns)


PLAIN = {
    "label_id": pa.array(["l0", "l1", None]),
    "key": pa.array([None, "b.png", "c.png"]),
    "verdict": pa.array(["correct", "bad_box", "checked"]),
    **{
        side: pa.array([None, value, None])
        for side, value in zip(("x0", "y0", "x1", "y1"), (1.5, 2.0, 7.0, 9.0), strict=True)
    },
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reviewed_at": pa.array([NOW] * 3, pa.timestamp("ms", tz="Europe/Berlin"))},
        {"reviewed_at": pa.array(["2026-03-01T12:00:00+02:00", "", "2026-03-01T12:00:00Z"])},
        {"reviewed_at": pa.array(["2026-03-01 12:00:00.5", None, "2026-03-01"])},
        {"verdict": PLAIN["verdict"].dictionary_encode(), "key": PLAIN["key"].dictionary_encode()},
        {"label_id": PLAIN["label_id"].cast(pa.large_string()), "rle_counts": pa.nulls(3)},
        {"class_name": pa.array(["CAT", None, " cat "]), "simulated": pa.array(["yes", "WAHR", None])},
        {"seconds": pa.array([1, 2, 3], pa.uint8()), "reviewer": pa.array(["", "bob", None])},
    ],
)
def test_plain_rows_are_taken(more):
    assert held(PLAIN | more).taken.all()


@pytest.mark.parametrize(
    "more",
    [
        {"label_id": pa.array([1, None, None]), "verdict": pa.array(["correct", None, "checked"])},
        {"reviewed_at": pa.array(["yesterday", None, None])},
        {"reviewed_at": pa.array([2**62, None, None]).cast(pa.timestamp("s"))},
        {"reviewed_at": pa.array([2**31 - 1, None, None], pa.int32()).cast(pa.date32())},
        {"seconds": pa.array(["1", None, None])},
        {"class_name": pa.array([["cat"], None, None])},
        {"class_name": pa.array([5, None, None])},
        {"rle_counts": pa.array(["6230>", None, None])},
    ],
)
def test_other_rows_are_left_to_the_rows_check(more):
    found = held(PLAIN | more)
    assert (found.taken | found.unanswered).tolist() == [False, True, True]


def test_an_empty_table():
    found = check_columns({"verdict": pa.array([], pa.string())}, 0, CHECKER)
    assert (found.verdicts.num_rows, found.verdicts.schema, len(found.taken)) == (0, VERDICTS, 0)
    assert found.taken.dtype == np.bool_
