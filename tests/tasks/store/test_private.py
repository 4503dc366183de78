"""Files that hold people's work are their owner's alone, whatever the umask, also where an earlier version wrote."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from vouch_labels.flows.console import output
from vouch_labels.review_ui.server.mongod import locked
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.reviews.read_file import write_table
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.private import PrivateLog

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def open_to_all():
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


def verdicts():
    row = dict.fromkeys(VERDICTS.names) | {"key": "a.png", "verdict": "checked", "reviewer": "ann", "simulated": False}
    return pa.Table.from_pylist([row], schema=VERDICTS)


def test_the_workspaces_answers(tmp_path):
    store = LocalStore(tmp_path / "workspace")
    (store.root / "reviews").mkdir(parents=True)
    store.put("labels/a", b"")
    assert write_verdicts(store, verdicts())
    assert mode(store.root / "reviews") == 0o700
    files = [one for one in (store.root / "reviews").rglob("*") if one.is_file()]
    assert [mode(one) for one in files] == [0o600, 0o600], "the answers, and their entry in the log"
    # Labels are made of images that others may read as well.
    assert (mode(store.root), mode(store.root / "labels"), mode(store.root / "labels" / "a")) == (0o777, 0o777, 0o666)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".jsonl"])
def test_files_of_answers(tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    path.write_text("from before")
    write_table(path, verdicts())
    assert mode(path) == 0o600


def test_the_data_of_a_queue(tmp_path):
    with locked(tmp_path / "queue" / "start.lock"):
        pass
    assert mode(tmp_path / "queue") == 0o700
    assert mode(tmp_path / "queue" / "start.lock") == 0o600


def test_the_log_of_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "state" / "vouch.log"))
    root = logging.getLogger()
    level = root.level
    try:
        assert output.start_log() == tmp_path / "state" / "vouch.log"
    finally:
        for handler in [one for one in root.handlers if getattr(one, "of_vouch", False)]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.captureWarnings(False)
    assert mode(tmp_path / "state") == 0o700
    assert mode(tmp_path / "state" / "vouch.log") == 0o600


def test_a_log_is_rotated_while_it_is_written_to(tmp_path):
    path = tmp_path / "one.log"
    path.write_text("from an earlier version\n")
    handler = PrivateLog(path, maxBytes=200, backupCount=1, encoding="utf-8")
    for number in range(20):
        handler.emit(logging.makeLogRecord({"msg": f"line {number} ü"}))
    handler.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["one.log", "one.log.1"]
    assert "line 19 ü" in path.read_text("utf-8")
    assert path.stat().st_size <= 200
    assert {mode(one) for one in tmp_path.iterdir()} == {0o600}


def test_standard_error_of_a_review_server_follows_its_log(tmp_path):
    path = tmp_path / "review.log"
    code = f"""
import logging, os
from vouch_labels.review_ui.server.__main__ import _Log
handler = _Log({str(path)!r}, maxBytes=200, backupCount=1)
for number in range(20):
    handler.emit(logging.makeLogRecord({{"msg": "a line of the log"}}))
os.write(2, b"a crash\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text().endswith("a crash\n")
    assert path.with_name("review.log.1").exists()
