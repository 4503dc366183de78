"""Child processes and the files that are written; every benchmark gives the rows that it guarantees."""

import json
import sys
from datetime import date

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.campaigns import Options, draw_pictures
from benchmarks.harness import (
    Measured,
    Result,
    Table,
    describe_machine,
    in_child,
    make_result,
    print_table,
    write_result,
)
from benchmarks.registry import BENCHMARKS
from benchmarks.source_images import KINDS, SHAPES
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.bench.timing import peak_bytes

TABLE = Table(title="walking", columns=["", "time"], rows=[["a mile", "20 min"]], notes=["On foot."], figures={"s": 1})
SLOW = pytest.mark.slow
WORLDS = [
    "plain",
    "four kinds of errors",
    "ICC .15",
    "ICC .30",
    "absent classes, ICC .15",
    "duplicates and parts",
    "grouped, 40 Zipf classes",
    "tired reviewers",
]
TARGETS = ("0.95", "0.98", "0.99")
CERTIFICATE = [
    *("80 % right, 400 reviews", "80 % right, gate accepted", "ties, two digits"),
    *("no score for a fifth of the images", "saturated, half of the scores 1", "anti-correlated"),
    *(f"80 % right, {reviews} reviews" for reviews in (200, 250, 300, 350, 600, 800)),
    *(f"80 % right, stopped at the first pass, gate {gate}" for gate in ("accepted", "delivered")),
    *("four kinds of errors", "ICC .15", "ICC .30"),
    *("absent classes, ICC .15", "duplicates and parts", "40 Zipf classes in groups", "video, 300 frames"),
    *("exact copies", "one bad class", "500 classes of 3 labels", "one image of 900 boxes"),
    *("83 % right, reviewers miss 5 %", "83 % right, reviewers miss 5 %, gate accepted"),
    "83 % right, led reviewers miss 5 %",
    *(f"83 % right, tired reviewers, gate {gate}" for gate in ("accepted", "delivered")),
    "1,000 labels come later, 40 % right",
    "500 images of 50 % right added to 700 of 97.5 %",
    *(f"just below T 0.95, stopped at the first pass, gate {gate}" for gate in ("accepted", "delivered")),
    *(f"just {side} T {target}" for target in TARGETS for side in ("below", "above")),
    *(f"{right} % right, {labels} labels" for labels in ("500", "4,000") for right in (93, 80, 45)),
    *("60 good nights, .97 right", "60 nights, .97 right, .90 from night 21 on"),
    *("worst row", "reviews for what 800 accepted before"),
]
CONTRACT = [
    *(f"{world}, T {target}, {gate}" for world in WORLDS for target in TARGETS for gate in "AB"),
    *(f"just {side} T, T {target}, {gate}" for target in TARGETS for side in ("below", "above") for gate in "AB"),
    *(f"{kind}, {gate}" for kind in ("worst", "floor") for gate in "AB"),
]
AFTER = [
    *(f"whole images, T {target}, ICC {icc}, broken" for target in TARGETS for icc in ("0.00", "0.15", "0.30")),
    *(
        f"audit, precision {audit}, covered"
        for audit in ("0.90", "0.96", "0.96, off by -0.10", "0.99", "0.99, off by 0.01")
    ),
    *(f"expiry, T {target}, falsely expired" for target in TARGETS),
    *(
        f"expiry, T 0.95, wrong from .03 to {rate} after {good} batches, noticed"
        for good in (0, 50, 200)
        for rate in ("0.10", "0.20")
    ),
    *(
        f"recall, {kind}, {images} images, covered"
        for kind in ("independent misses", "misses by image", "whole images missed")
        for images in (90, 300)
    ),
    *(
        f"recall, {kind}, 200 images, covered"
        for kind in (
            *("90% empty", "95% empty", "98% empty", "95% empty, recall .70"),
            *(f"one object in 1%, recall {rate}" for rate in (".90", ".70", ".50")),
            *("3% crowds of 60", "misses by image, unfinished"),
        )
    ),
    *(f"worst {kind}" for kind in ("broken", "covered", "falsely expired")),
]
STARTER = [
    *(
        f"{style} style, T {target}, {rule}"
        for style in ("seen", "harder")
        for rules in (("A", "A, missed 0", "B", "B, missed 0"), ("B, commands",))
        for target in ("0.90", "0.95", "0.98")
        for rule in rules
    ),
    "worst",
    "floor",
]
ENGINE = [
    *(f"starter, in memory: {way}" for way in ("loop, fp32", "Vouch reference, fp32", "Vouch fast, fp32")),
    *(f"starter, files: {way}" for way in ("loop, fp32", "Vouch fast, from a folder")),
    *(
        f"starter, {step}: Vouch {engine}, fp32"
        for step in ("detect", "segment", "score")
        for engine in ("reference", "fast")
    ),
]
TOGETHER = "12 of TIFF, float, one strip, WebP, lossless, PNG in 8 threads"
DECODING = [*KINDS, TOGETHER]
SWITCHES = [f"starter, static_shapes: {way}" for way in ("all on but this", "this alone")]
ROWS = [
    pytest.param("end_to_end", "baseline; Vouch; Vouch : loop", marks=SLOW),
    pytest.param(
        "stage_shares",
        "acquire; detect; segment; score; route; tables; write; rest; all; "
        "in models; in storage and decoding; in the code around them",
        marks=SLOW,
    ),
    pytest.param("engine", "; ".join(ENGINE), marks=SLOW),
    pytest.param("engine_switches", "; ".join(SWITCHES), marks=SLOW),
    pytest.param(
        "cluster",
        "driver, CPU time a shard (limit 2 ms); share of the time in which workers work (limit 0.95); "
        "bundled models, one process, two threads; bundled models, two workers, a thread each",
        marks=SLOW,
    ),
    pytest.param("cluster_plans", "100; 2,000", marks=SLOW),
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
    pytest.param("faults", "kill -9; SIGTERM; SIGINT; full disk", marks=SLOW),
    pytest.param("listing", "folder, 2,000; folder, 2,000, nothing new; made up, 5,000"),
    pytest.param(
        "far_listing",
        "; ".join(
            f"{shape}: {how}" for shape in SHAPES for how in ("boto3's pages", "s3.threads: 1", "s3.threads: 16")
        ),
        marks=SLOW,
    ),
    pytest.param(
        "fetching",
        "; ".join(
            f"boto3, {how}{alone}"
            for alone in ("", ", read alone")
            for how in ("8 threads", "16 threads", "32 threads", "64 threads", "fetch_threads: auto")
        ),
        marks=SLOW,
    ),
    pytest.param("decoding", "; ".join(DECODING), marks=SLOW),
    pytest.param("small_objects", "whole images; run.tiles; gain (target 0.25)", marks=SLOW),
    pytest.param(
        "export",
        "1,000 labels; 1,000 labels, files of 10,000 images; 1,000 labels, Parquet; limit for 1,000,000",
    ),
    pytest.param("verdict_import", "20,000 rows; the same file again; limit for 5,000,000"),
    pytest.param("ground_truth", "with masks, as evaluate does; without, as simulate does; limit"),
    pytest.param(
        "review_queue",
        "fill with 300 questions; mongod meanwhile; limit for 10,000; fill again, nothing new; take 25; "
        "submit one answer; limit for an answer; undo; progress; pull 50 answers",
        marks=pytest.mark.mongod,
    ),
    pytest.param(
        "review_operators",
        "item; take_batch; submit; reject; wrong_class; bad_box; skip; undo; limit for an item",
        marks=[SLOW, pytest.mark.mongod],
    ),
    pytest.param(
        "review_app",
        "address to the first picture and its question; the same from the App's load; limit for that; "
        "key to the next item's picture",
        marks=[SLOW, pytest.mark.browser, pytest.mark.mongod],
    ),
    pytest.param("certificate", "; ".join(CERTIFICATE), marks=SLOW),
    pytest.param("routing_contract", "; ".join(CONTRACT), marks=SLOW),
    pytest.param("routing_after", "; ".join(AFTER)),
    pytest.param("routing_starter", "; ".join(STARTER), marks=SLOW),
    pytest.param(
        "routing_size",
        "first sample; fit; probabilities; certify both gates; decide; all, 20,000 labels; "
        "vouch plan-reviews, calibration set; vouch plan-reviews, validation sample of 1,200; vouch certify; "
        "vouch apply; the last three, 20,000 labels; limit for 1,000,000",
    ),
    pytest.param(
        "train",
        "; ".join(
            [
                *(
                    f"{style} style, {arm}"
                    for style in ("seen", "harder")
                    for arm in ("Vouch's labels", "the truth", "raw predictions")
                ),
                *(f"harder style, new scenes, detector {when} the loop" for when in ("before", "after")),
            ]
        ),
        marks=SLOW,
    ),
    pytest.param(
        "large",
        "status; certify, nothing asked yet; plan-reviews, calibration set; "
        "plan-reviews, validation sample of 1,200; certify; apply; report",
        marks=SLOW,
    ),
]


def test_a_function_runs_in_a_process_of_its_own(tmp_path):
    measured = in_child(draw_pictures, folder=tmp_path, count=3)
    assert len(list(tmp_path.rglob("*.jpg"))) == 3
    assert measured.value is None
    assert measured.seconds > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak may start from the parent's")
def test_the_peak_is_the_childs_alone(tmp_path):
    held = bytearray(b"\1") * (600 << 20)
    measured = in_child(draw_pictures, folder=tmp_path, count=1)
    assert peak_bytes() > len(held)
    assert 1 << 20 < measured.peak_bytes < len(held) / 2


def test_a_failed_child_says_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VouchError, match=r"draw_pictures ended with exit status 1(?s:.*)NotADirectoryError"):
        in_child(draw_pictures, folder=tmp_path / "file", count=1)


def test_arguments_of_the_wrong_type_are_refused(tmp_path):
    with pytest.raises(VouchError, match="count"):
        in_child(draw_pictures, folder=tmp_path, count="many")  # type: ignore[arg-type] # so that it fails there


def test_the_table_reads_with_its_notes(capsys):
    print_table(Console(width=80), TABLE)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("walking", "a mile", "20 min", "- On foot."))


def test_results_are_written_and_kept(tmp_path):
    measured = Measured[Table](value=TABLE, seconds=2.5, peak_bytes=1)
    write_result(tmp_path, make_result("export", measured), list(BENCHMARKS))
    write_result(tmp_path, make_result("memory", measured), list(BENCHMARKS))
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.index("## memory: walking") < page.index("## export: walking")
    assert "| a mile | 20 min |" in page
    assert "- On foot." in page
    result = Result.model_validate(json.loads((tmp_path / "results/memory.json").read_text()))
    assert result.table == TABLE
    assert result.measured_on == date.today()
    assert result.machine in page


def test_the_machine_is_described_without_its_name():
    import socket

    words = describe_machine()
    assert "cores of" in words
    assert "torch 2." in words
    assert socket.gethostname() not in words.split()


def test_the_command_runs_what_is_named(tmp_path):
    done = CliRunner().invoke(app, ["export", "--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "1,000 labels" in done.output
    assert "## export: " in (tmp_path / "RESULTS.md").read_text()


def test_what_cannot_be_measured_here_does_not_keep_the_others_from_it(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    done = CliRunner().invoke(app, ["review_app", "export", "--quick"])
    assert done.exit_code == 1
    assert "there is no /nowhere/chromium; install chromium" in done.output
    assert "Traceback" not in done.output
    assert "1,000 labels" in done.output


def test_a_quick_run_writes_nothing_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.HERE", tmp_path)
    assert CliRunner().invoke(app, ["export", "--quick"]).exit_code == 0
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_refused_with_the_right_ones():
    done = CliRunner().invoke(app, ["exprot"])
    assert done.exit_code == 2
    assert "exprot" in done.output
    assert "end_to_end" in done.output


def test_help_shows_examples():
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "python -m benchmarks listing --huge" in shown
    assert all(name in shown for name in BENCHMARKS)


# Every benchmark runs at small sizes and gives the rows that it guarantees, with figures that make sense.


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
