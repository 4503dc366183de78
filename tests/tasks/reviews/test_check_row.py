from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reviews import VERDICTS
from tasks.reviews.check_row import RowChecker, RowError
from tasks.reviews.file_rows import COLUMNS
from tasks.reviews.verdicts import trouble

NOW = datetime(2026, 3, 4, tzinfo=UTC)
CHANGED = NOW - timedelta(days=7)
CHECKER = RowChecker(("cat", "Überwurf 螺母"), "ann", CHANGED, NOW)


def test_a_full_row():
    row = {
        "label_id": 12,
        "verdict": " Wrong-Class ",
        "class_name": "ÜBERWURF 螺母",
        "x0": "1",
        "y0": 2,
        "x1": 3.5,
        "y1": "4e1",
        "reviewer": "bob",
        "seconds": "2.5",
        "reviewed_at": "2026-03-01T12:00:00+02:00",
        "simulated": "True",
        "rle_counts": "52203",
    }
    assert CHECKER.check(row) == {
        "label_id": "12",
        "key": None,
        "verdict": "wrong_class",
        "class_name": "Überwurf 螺母",
        "x0": 1,
        "y0": 2,
        "x1": 3.5,
        "y1": 40,
        "reviewer": "bob",
        "seconds": 2.5,
        "reviewed_at": datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        "simulated": True,
        "rle_counts": b"52203",
    }


def test_what_is_left_out_is_filled_in():
    nan = float("nan")
    row = CHECKER.check({"label_id": "1", "verdict": "CORRECT", "x0": nan, "reviewer": "", "seconds": nan, "key": nan})
    assert row is not None
    assert list(row) == VERDICTS.names
    assert {name: value for name, value in row.items() if value is not None} == {
        "label_id": "1",
        "verdict": "correct",
        "reviewer": "ann",
        "reviewed_at": CHANGED,
        "simulated": False,
    }
    assert CHECKER.check({"label_id": "1", "verdict": " ", "seconds": "what"}) is None


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"verdict": "wrong_clas"}, "'wrong_clas' is no verdict; did you mean wrong_class?"),
        ({"verdict": "7"}, "'7' is no verdict; use correct, wrong_class"),
        ({"verdict": True}, "verdict: 'True' is no text"),
        ({"label_id": ""}, "correct needs a label_id"),
        ({"label_id": "\ud800"}, "is not valid Unicode"),
        ({"class_name": "cta"}, "'cta' is no class of the campaign; did you mean 'cat'?"),
        ({"class_name": "zebra"}, "name one of them"),
        ({"x0": 1, "y0": 1}, "the box lacks x1, y1"),
        ({"x0": 1, "y0": 1, "x1": 1, "y1": 2}, "the box 1, 1, 1, 2 is empty or inside out"),
        ({"x0": 3, "y0": 1, "x1": 1, "y1": 2}, "inside out"),
        ({"x0": 1e8, "y0": 1, "x1": 1e8 + 1, "y1": 2}, "is empty"),
        ({"x0": "inf", "y0": 1, "x1": 1, "y1": 2}, "x0: 'inf' is no number"),
        ({"x0": "nan", "y0": 1, "x1": 1, "y1": 2}, "x0: 'nan' is no number"),
        ({"x0": [1], "y0": 1, "x1": 1, "y1": 2}, r"x0: '\[1\]' is no number"),
        ({"seconds": -1}, "seconds: -1 is less than 0"),
        ({"seconds": True}, "seconds: 'True' is no number"),
        ({"seconds": 10**400}, "is no number"),
        ({"reviewed_at": "yesterday"}, "'yesterday' is no time; write it as 2026"),
        ({"reviewed_at": 7}, "'7' is no time"),
        ({"reviewed_at": "0001-01-01"}, "is no time"),
        ({"reviewed_at": "2026-03-09"}, "is yet to come"),
        ({"simulated": "maybe"}, "simulated: 'maybe' is neither true nor false"),
        ({"verdict": "checked", "key": "a"}, "checked is about an image: leave label_id empty"),
        ({"verdict": "checked", "label_id": None}, "checked needs the image's key"),
        ({"verdict": "missed", "label_id": None, "key": "a", "class_name": "cat"}, "missed needs the object's"),
        ({"rle_counts": "abc"}, "rle_counts: the mask is no compressed COCO RLE; write the counts"),
        ({"rle_counts": b"\xff"}, "rle_counts: the mask is no compressed COCO RLE"),
        ({"rle_counts": "é"}, "rle_counts: the mask is no compressed COCO RLE"),
        ({"rle_counts": "n0"}, "rle_counts: the mask has no pixel"),
        ({"rle_counts": 6230}, "rle_counts: '6230' is no text"),
        ({"rle_counts": {"size": [5, 6], "counts": "6230>"}}, "is no text; write the counts of a compressed COCO RLE"),
        ({"verdict": "wrong_class", "rle_counts": "6230>"}, "wrong_class with a mask needs the right class_name"),
        ({"verdict": "bad_box", "rle_counts": "6230>"}, "bad_box with a mask needs the right box"),
        ({"verdict": "checked", "label_id": None, "key": "a", "rle_counts": "6230>"}, "checked has no mask"),
        (
            {"verdict": "checked", "label_id": None, "key": "a", "x0": 1, "y0": 1, "x1": 2, "y1": 2},
            "checked has no box",
        ),
    ],
)
def test_what_is_no_verdict(row, problem):
    with pytest.raises(RowError, match=problem):
        CHECKER.check({"label_id": "1", "verdict": "correct"} | row)


def test_masks():
    box = {"x0": 1, "y0": 1, "x1": 3, "y1": 3}
    rows = [
        {"verdict": "correct"},
        {"verdict": "wrong_class", "class_name": "cat"},
        {"verdict": "wrong_class", "class_name": "cat"} | box,
        {"verdict": "bad_box"} | box,
        {"verdict": "missed", "label_id": None, "key": "a.png", "class_name": "cat"} | box,
    ]
    for row in rows:
        found = [
            CHECKER.check({"label_id": "1", "rle_counts": mask} | row) for mask in (" 6230>\n", b"6230>", "", None)
        ]
        assert [one["rle_counts"] for one in found] == [b"6230>", b"6230>", None, None]
    # Tools repeat what the label has.
    assert CHECKER.check({"label_id": "1", "verdict": "not_an_object", "rle_counts": "what"})["verdict"]


VALUE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=1)
)


@given(
    st.dictionaries(
        st.sampled_from(COLUMNS), VALUE | st.sampled_from(["missed", "checked", "correct", "cat", 1, 2, "6230>", b"62"])
    )
)
def test_any_row_is_a_verdict_or_refused(row):
    try:
        found = CHECKER.check(row)
    except RowError:
        return
    if found is not None:
        assert not trouble(pa.Table.from_pylist([found], schema=VERDICTS))
