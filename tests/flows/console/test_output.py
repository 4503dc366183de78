import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from vouch_labels.flows.console.output import MAX_BYTES, Terminal, log_path, quiet, show, start_log
from vouch_labels.schemas.text import Table

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
