"""Child processes, memory, and the files that are written."""

import json
import sys
from datetime import date

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.campaigns import draw_pictures
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
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.bench.timing import peak_bytes

TABLE = Table(title="walking", columns=["", "time"], rows=[["a mile", "20 min"]], notes=["On foot."], figures={"s": 1})


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
        in_child(draw_pictures, folder=tmp_path, count="many")  # type: ignore[arg-type]


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
    assert "## export: COCO export" in (tmp_path / "RESULTS.md").read_text()


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
