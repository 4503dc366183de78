"""What is printed: in which form, in which encoding, and while work goes on."""

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from vouch_labels.flows.console.output import MAX_BYTES, PLAIN, Terminal, log_path, print_json, quiet, show, start_log
from vouch_labels.flows.console.progress import RunProgress
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.text import Table
from vouch_labels.tasks.shard.events import Exporting, Listing, Loading, Planned, Progress

CODE = """
import os, subprocess, sys
from vouch_labels.flows.console.output import start_log
from vouch_labels.flows.console.output import quiet
start_log()
print("before")
with quiet() as terminal:
    print("python out")
    print("python err", file=sys.stderr)
    os.write(1, b"c out\\n")
    os.write(2, b"c err\\n")
    subprocess.run(["sh", "-c", "echo child out; echo child err >&2"])
    terminal.out.write("result\\n")
    terminal.remarks().print("remark")
print("after")
print("after err", file=sys.stderr)
"""
SAY = """
import sys
from vouch_labels.flows.cli import app
def say():
    print(sys.getfilesystemencoding(), sys.argv[1:])
    print("p \u2265 0.5 \u2026 \u00fc \u2500 \U0001f600")
app.app = say
app.main()
"""


def test_only_own_words_reach_the_terminal(tmp_path):
    log = tmp_path / "vouch.log"
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env={**os.environ, "VOUCH_LOG": str(log)}
    )
    assert result.stdout == "before\nresult\nafter\n"
    assert result.stderr == "remark\nafter err\n"
    text = log.read_text()
    for words in ("python out", "python err", "c out", "c err", "child out", "child err"):
        assert words in text


def test_streams_come_back_after_an_error(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "missing" / "vouch.log"))
    try:
        with quiet():
            print("lost")
            raise ValueError
    except ValueError:
        pass
    print("seen")
    os.write(2, b"seen too\n")
    out, err = capfd.readouterr()
    assert out == "seen\n"
    assert err == "seen too\n"


def test_a_notebooks_stream_stays_where_it_is_and_its_descriptor_too(tmp_path, monkeypatch, capfd):
    class NotebookStream(io.StringIO):
        """As ipykernel's: it has the descriptor of its server's output, where nobody looks."""

        def fileno(self):
            return 1

    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "vouch.log"))
    stream = NotebookStream()
    monkeypatch.setattr(sys, "stdout", stream)
    with quiet() as terminal:
        print("python out")
        terminal.results().print("result")
        os.write(1, b"to the server\n")
    assert stream.getvalue() == "result\n"
    assert capfd.readouterr().out == "to the server\n"
    assert (tmp_path / "vouch.log").read_text() == "python out\n"


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "a" / "vouch.log"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield start_log()
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def test_place(monkeypatch, tmp_path):
    monkeypatch.delenv("VOUCH_LOG", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert log_path() == tmp_path / "vouch" / "vouch.log"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert log_path() == Path.home() / ".local" / "state" / "vouch" / "vouch.log"


@pytest.mark.filterwarnings("default:careful")
def test_messages_warnings_and_tracebacks(log):
    logging.getLogger("any.library").info("hello")
    warnings.warn("careful", stacklevel=1)
    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("x").exception("failed")
    text = log.read_text()
    assert "INFO any.library: hello" in text
    assert "careful" in text
    assert "ValueError: oops" in text


def test_secrets_are_blotted_out(log, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-value")
    logging.getLogger("x").warning("key s3cr3t-value and https://me:pass@host/p?X-Amz-Signature=abc&x=1 end")
    try:
        raise ValueError("in a traceback: s3cr3t-value")
    except ValueError:
        logging.getLogger("x").exception("failed")
    text = log.read_text()
    for secret in ("s3cr3t-value", "pass", "abc"):
        assert secret not in text
    assert "https://host/p end" in text


def test_a_second_start_does_not_write_twice(log):
    start_log()
    logging.getLogger("x").info("once")
    assert log.read_text().count("once") == 1


def test_it_rotates(log):
    for _ in range(3):
        logging.getLogger("x").info("%s", "y" * (MAX_BYTES // 2))
    assert log.with_name("vouch.log.1").exists()
    assert log.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("name", ["car [small]", "[/x]", ":smile:"])
def test_names_are_no_markup(name):
    out = io.StringIO()
    show(Terminal(out, out).results(), [name, Table(name, {"class": str, "n": str}, [(name, name)])])
    assert out.getvalue().count(name) == 4


def test_nothing_shown_commands_the_terminal():
    out, name = io.StringIO(), "cannot read \x1b[2J\x9b31m.png"
    show(Terminal(out, out).results(), [name, Table(name, {name: str}, [(name,)])])
    assert "\x1b" not in out.getvalue()
    assert "\x9b" not in out.getvalue()


def test_commands_name_the_campaign_file():
    out = io.StringIO()
    show(Terminal(out, out).results(), ["next: vouch plan-reviews CAMPAIGN", "CAMPAIGN"], Path(r"a\1.yaml"))
    assert out.getvalue() == "next: vouch plan-reviews a\\1.yaml\nCAMPAIGN\n"


def run(tmp_path, *words, **environment):
    asked = ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    kept = {name: value for name, value in os.environ.items() if name not in asked}
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, env=kept | {"VOUCH_LOG": str(tmp_path / "log")} | environment, check=False
    )


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def test_names_are_utf8_where_the_locale_is_not(tmp_path):
    done = run(tmp_path, "-c", SAY.encode("ascii", "backslashreplace").decode(), "Größe", **ASCII)
    assert done.returncode == 0, done.stderr
    named, signs = done.stdout.decode("ascii").splitlines()
    assert named == r"utf-8 ['Gr\xf6\xdfe']"
    assert signs == r"p >= 0.5 ... \xfc \u2500 \U0001f600"


def test_the_terminal_gets_what_it_can_show(tmp_path):
    done = run(tmp_path, "-c", SAY, LC_ALL="C.UTF-8", PYTHONIOENCODING="latin-1")
    assert done.stdout.decode("latin-1").splitlines()[1] == "p >= 0.5 ... ü \\u2500 \\U0001f600"
    done = run(tmp_path, "-c", SAY, LC_ALL="C.UTF-8")
    assert done.stdout.decode().splitlines()[1] == "p \u2265 0.5 \u2026 ü \u2500 \U0001f600"


@pytest.mark.parametrize("environment", [ASCII, {"LC_ALL": "C"}, {}], ids=["ascii", "C", "none"])
def test_commands_with_umlauts(tmp_path, environment):
    folder = tmp_path / "Größe x"
    (tmp_path / "Bäder").mkdir()
    done = run(
        tmp_path,
        "-m",
        "vouch_labels.flows.cli",
        "init",
        str(folder),
        "--class",
        "Tür",
        "--source",
        str(tmp_path / "Bäder"),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert "name: Tür" in (folder / "campaign.yaml").read_text(encoding="utf-8")
    done = run(
        tmp_path, "-m", "vouch_labels.flows.cli", "status", str(folder / "campaign.yaml"), "--json", **environment
    )
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_help_and_lists_on_an_ascii_terminal(tmp_path):
    for words in (["--help"], ["models", "list"], ["run", "--help"]):
        done = run(tmp_path, "-m", "vouch_labels.flows.cli", *words, **ASCII)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert (done.stdout + done.stderr).isascii()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_says_the_same_in_every_encoding(tmp_path, encoding):
    value = {"key": "Gr\u00f6\u00dfe \u87ba.png", "undecodable": "\udcff"}
    path = tmp_path / "out"
    with path.open("w", encoding=encoding) as out:
        print_json(Terminal(out, out), value)
    assert json.loads(path.read_text(encoding=encoding)) == value


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "Gr\udcc3\udcb6\udcc3\udc9fe", r"Gr\xf6\xdfe"),
        ("latin-1", "Gr\udcc3\udcb6\udcc3\udc9fe \u2265 1", "Größe >= 1"),
        ("utf-8", "Gr\udcf6\udcdfe \u2265 1 \u2026", "Gr\\xf6\\xdfe \u2265 1 \u2026"),
        ("ascii", "\ud800", r"\ud800"),
    ],
)
def test_names_that_could_not_be_decoded(encoding, text, shown):
    assert text.encode(encoding, PLAIN).decode(encoding) == shown


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_plain_lines(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        for event in (Loading("detector"), Listing(1000), Listing(2500), Planned(2500, 500, 2)):
            progress(event)
        for _ in range(3):
            clock[0] += 6
            progress(Progress(done=99, failed=1, accepted=20, review=5))
        progress(Exporting(1, "annotations"))
        clock[0] += 11
        progress(Exporting(900, "annotations"))
    assert out.getvalue().splitlines() == [
        "loading detector",
        "listing the source: 1,000 keys",
        "listing the source: 2,500 keys",
        "planned: 2,000 images to work through, 500 done before",
        "labelling: 600 of 2,500 images | 20 accepted, 5 review, 1 failed",
        "labelling: 800 of 2,500 images | 16.7 images/s, 1 min 42 s left | 60 accepted, 15 review, 3 failed",
        "exporting annotations",
        "exporting annotations: 900 images",
    ]


def test_the_last_line_of_a_phase_says_how_far_it_came(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        progress(Planned(27, 0, 1))
        progress(Progress(26, 0, 20, 6))
        progress(Progress(0, 1, 0, 0))
        progress(Exporting(1, "annotations"))
    assert out.getvalue().splitlines() == [
        "planned: 27 images to work through, 0 done before",
        "labelling: 26 of 27 images | 20 accepted, 6 review, 0 failed",
        "labelling: 27 of 27 images | 20 accepted, 6 review, 1 failed",
        "exporting annotations",
        "exporting annotations: 1 image",
    ]


def test_a_refusal_has_no_line_before_it(clock):
    out = io.StringIO()
    with pytest.raises(UserError), RunProgress(Console(file=out, width=200), plain=True):
        raise UserError("no such folder")
    assert out.getvalue() == ""


def test_a_listing_that_has_only_begun_names_no_number(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        progress(Listing(0))
        clock[0] += 11
        progress(Listing(40))
    assert out.getvalue().splitlines() == ["listing the source", "listing the source: 40 keys"]


def test_a_shard_that_is_tried_again_takes_back_what_it_said(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=200), plain=True) as progress:
        progress(Planned(10, 0, 1))
        progress(Progress(5, 1, 3, 2))
        clock[0] += 20
        progress(Progress(-5, -1, -3, -2))
    assert out.getvalue().splitlines()[-1] == "labelling: 0 of 10 images | 0 accepted, 0 review, 0 failed"


def test_live_line_on_a_terminal_is_drawn_and_removed(clock):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, legacy_windows=False)
    with RunProgress(console, plain=False) as progress:
        progress(Planned(100, 0, 1))
        progress(Progress(40, 2, 7, 3))
    text = out.getvalue()
    assert "42 of 100 images" in text
    assert "7 accepted, 3 review, 2 failed" in text
    assert text.endswith("\x1b[2K")


def test_without_a_terminal_lines_are_plain_unasked(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out), plain=False) as progress:
        progress(Listing(3))
    assert out.getvalue() == "listing the source: 3 keys\n"


def test_warnings_of_the_steps_reach_the_terminal_and_errors_do_not():
    import logging

    file = io.StringIO()
    with RunProgress(Console(file=file, width=200), plain=True):
        logging.getLogger("vouch_labels.tasks.models.batching").warning("out of device memory: batches of %d\x1b[2J", 2)
        logging.getLogger("vouch_labels.tasks.shard.steps").error("detect failed for 1.jpg")
    logging.getLogger("vouch_labels.tasks.models.batching").warning("too late")
    assert "out of device memory: batches of 2" in file.getvalue()
    assert "\x1b" not in file.getvalue()
    assert "1.jpg" not in file.getvalue()
    assert "too late" not in file.getvalue()
