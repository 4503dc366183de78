import json
from datetime import UTC, datetime

import pytest

from schemas.errors import UserError
from tasks.reviews.file_rows import read_rows
from tasks.reviews.table_file import write_table


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
