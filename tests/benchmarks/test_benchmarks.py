"""Every benchmark runs at small sizes and gives the rows that it promises, with figures that make sense."""

import pytest

from benchmarks.harness.child import in_child
from benchmarks.options import Options
from benchmarks.registry import BENCHMARKS

SLOW = pytest.mark.slow
ROWS = [
    pytest.param("end_to_end", "obvious loop; Vouch; Vouch : loop", marks=SLOW),
    pytest.param(
        "stage_shares",
        "acquire; detect; segment; score; route; tables; write; rest; all; "
        "in models; in storage and decoding; in the code around them",
        marks=SLOW,
    ),
    pytest.param(
        "orchestration",
        "first start of the embedded server; 1 shard; 3 shards; each shard; each run; "
        "images/s at which a shard of 1,000 loses 1 %",
        marks=SLOW,
    ),
    pytest.param(
        "memory",
        "loop, 20 images; loop, 60 images; loop, 60 : 20 (limit 1.10); "
        "flow, 20 images; flow, 60 images; flow, 60 : 20 (limit 1.10)",
        marks=SLOW,
    ),
    pytest.param("listing", "folder, 2,000; folder, 2,000, nothing new; made up, 5,000"),
    pytest.param("export", "1,000 labels; limit for 1,000,000"),
]


@pytest.mark.parametrize(("name", "rows"), ROWS)
def test_quick_run_has_its_rows(name, rows, monkeypatch):
    monkeypatch.delenv("S3_TEST_ENDPOINT", raising=False)
    measured = in_child(BENCHMARKS[name], options=Options(quick=True))
    table = measured.value
    assert [row[0] for row in table.rows] == rows.split("; ")
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.figures
    assert table.notes
    assert measured.seconds > 0


def test_every_benchmark_is_tested():
    tested = [entry.values[0] for entry in ROWS]
    assert tested == list(BENCHMARKS)


@pytest.mark.s3
def test_listing_measures_a_real_bucket():
    table = in_child(BENCHMARKS["listing"], options=Options(quick=True)).value
    assert "S3 on loopback, 2,000" in [row[0] for row in table.rows]
