"""Files of reviews: formats, columns and their values."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.reviews import read_file
from vouch_labels.tasks.reviews.column_checks import check_columns
from vouch_labels.tasks.reviews.read_file import python_values, read_batches, read_rows, write_table
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


def rows(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path))


def test_the_same_rows_from_every_kind_of_file(tmp_path):
    objects = [{"label_id": "1", "verdict": "correct"}, {"label_id": "2", "verdict": "bad box"}]
    assert rows(tmp_path, "a.csv", "\ufefflabel_id,Verdict\n1,correct\n\n2,bad box\n") == [
        (2, objects[0]),
        (4, objects[1]),
    ]
    text = ['{"label_id": "1", "verdict": "correct"}', '{"verdict": "bad box", "label_id": "2"}']
    assert rows(tmp_path, "a.json", f"[{', '.join(text)}]") == [(1, objects[0]), (2, objects[1])]
    assert rows(tmp_path, "a.jsonl", "\n\n".join(text)) == [(1, objects[0]), (3, objects[1])]
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet")) == [(1, objects[0]), (2, objects[1])]


def test_parquet_of_data_frames(tmp_path):
    frame = pd.DataFrame(
        {
            "label_id": pd.Categorical(["1", "2"]),
            "verdict": ["correct", None],
            "seconds": [1, 2],
            "reviewed_at": pd.to_datetime(["2026-03-04T05:06:07.000000001", None]),
            "x0": [1.5, None],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    (_, first), (_, second) = read_rows(tmp_path / "a.parquet")
    assert first["reviewed_at"].replace(tzinfo=UTC) == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert (first["label_id"], first["seconds"], first["x0"]) == ("1", 1, 1.5)
    assert second["reviewed_at"] is None


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", "", "a verdict file is a .csv, .parquet, .json, .jsonl file"),
        ("a.csv", "label,verdict\n", "unknown column 'label'; did you mean label_id?"),
        ("a.csv", "label_id,colour\n", "unknown column 'colour'; use label_id, key, verdict"),
        ("a.csv", "label_id,LABEL_ID\n", "the column label_id is there twice"),
        ("a.csv", "", "has no column 'verdict'; add it, with one of correct, wrong_class"),
        ("a.csv", "label_id verdict\n1 correct\n", "unknown column 'label_id verdict'"),
        ("a.csv", "label_id;verdict\n1,correct\n", "row 2 has 1 cells, the header 2"),
        ("a.csv", "label_id,verdict\n1\n", "row 2 has 1 cells, the header 2"),
        ("a.csv", b"label_id,verdict\n\xff,correct\n", "is not UTF-8"),
        ("a.csv", 'label_id,verdict\n"1"x,correct\n', "row 2 is not CSV"),
        ("a.csv", f"label_id,verdict\n{'1' * 3_000_000},correct\n", "row 2 is not CSV"),
        ("a.json", '{"label_id": "1"}', "is not an array of objects"),
        ("a.json", "[1]", "row 1 is not an object"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", '[{"labelid": 1}]', "did you mean label_id?"),
        ("a.jsonl", '{"label_id": "1"}\n{"label_id": ', "row 2 is not JSON"),
        ("a.parquet", "PAR1", "is not a readable Parquet file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, problem):
    with pytest.raises(UserError, match=problem) as caught:
        rows(tmp_path, name, content)
    assert "\n" not in str(caught.value)


def test_what_a_german_excel_writes(tmp_path):
    text = "label_id;verdict;x0;reviewer\n1;correct;12,5;ann, bob\n"
    row = {"label_id": "1", "verdict": "correct", "x0": "12.5", "reviewer": "ann, bob"}
    assert rows(tmp_path, "a.csv", text) == [(2, row)]
    assert rows(tmp_path, "b.csv", f"\ufeffsep=;\n{text}") == [(3, row)]
    assert rows(tmp_path, "c.csv", text.replace(";", "\t"))[0][1]["x0"] == "12,5"


def test_text_in_parquet_that_is_none(tmp_path):
    text = pa.array([b"a.png", b"\xff.png"], pa.binary()).view(pa.string())
    table = pa.table({"label_id": ["1", "2"], "verdict": ["correct", "correct"], "key": text})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: row 2: key is not UTF-8; write it as UTF-8"):
        list(read_rows(tmp_path / "a.parquet"))
    pq.write_table(table.set_column(2, "key", text.dictionary_encode()), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="key is not UTF-8"):
        list(read_rows(tmp_path / "b.parquet"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pa.array([2**62]).cast(pa.timestamp("us")), r"a timestamp\[us\] out of range"),
        (pa.array([2**61]).cast(pa.timestamp("ms", tz="UTC")), "out of range"),
        (pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), r"a date32\[day\] out of range"),
    ],
)
def test_times_in_parquet_that_are_none(tmp_path, values, words):
    pq.write_table(pa.table({"verdict": ["correct"], "reviewed_at": values}), tmp_path / "a.parquet")
    ((_, row),) = read_rows(tmp_path / "a.parquet")
    assert re.fullmatch(f".*{words}", row["reviewed_at"])


def test_lines_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(read_file, "MOST_LINE", 200)
    with pytest.raises(UserError, match="a line has more than"):
        rows(tmp_path, "a.csv", f"label_id,verdict\n{'1' * 300},correct\n")
    with pytest.raises(UserError, match="row 1 has more than"):
        rows(tmp_path, "a.jsonl", json.dumps({"label_id": "1" * 300}))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json", "jsonl"])
def test_reading_is_followed(tmp_path, verdicts, suffix):
    path = tmp_path / f"a.{suffix}"
    write_table(path, verdicts(*({"label_id": str(number)} for number in range(50))))
    seen = []
    (batch,) = read_batches(path, lambda done, total: seen.append((done, total)))
    assert batch.rows == 50
    whole = 50 if suffix == "parquet" else path.stat().st_size
    assert seen == [(whole, whole)]


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(read_file, "MOST_ROWS", 1)
    with pytest.raises(UserError, match="more than 1 rows; split it"):
        rows(tmp_path, "a.csv", "label_id,verdict\n1,correct\n2,correct\n")
    monkeypatch.setattr(read_file, "MOST_BYTES", 1 << 20)
    with pytest.raises(UserError, match="has 2 MiB; split it into files up to 1 MiB"):
        rows(tmp_path, "a.csv", " " * (2 << 20))
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        list(read_rows(tmp_path / "none.csv"))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json", "jsonl"])
def test_what_is_written_can_be_imported(tmp_path, verdicts, suffix):
    table = verdicts(
        {"label_id": "1", "verdict": "bad_box", "box": (1, 2, 3, 4.5), "seconds": 2, "rle_counts": b"62\\30>"},
        {"key": 'ü "a".png', "verdict": "checked", "at": 5, "simulated": True},
    )
    path = tmp_path / f"verdicts.{suffix}"
    write_table(path, table)
    first, second = (row for _, row in read_rows(path))
    assert (first["label_id"], float(first["y1"]), second["key"]) == ("1", 4.5, 'ü "a".png')
    assert second["label_id"] in (None, "")
    assert first["rle_counts"] == (b"62\\30>" if suffix == "parquet" else "62\\30>")
    assert not second["rle_counts"]
    time = second["reviewed_at"]
    assert (time if isinstance(time, datetime) else datetime.fromisoformat(time)) == datetime(
        2026, 3, 4, 0, 5, tzinfo=UTC
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nothing_is_written_well(tmp_path, verdicts):
    write_table(tmp_path / "a.json", verdicts())
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_where_it_cannot_be_written(tmp_path, verdicts):
    with pytest.raises(UserError, match=r"cannot tell the format; name it \*\.csv, \*\.parquet"):
        write_table(tmp_path / "verdicts.xlsx", verdicts())
    with pytest.raises(UserError, match=r"cannot write .*; name another file"):
        write_table(tmp_path / "none" / "verdicts.csv", verdicts())


# Columns are checked as rows are: what is taken is what the check of rows makes of it.


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
