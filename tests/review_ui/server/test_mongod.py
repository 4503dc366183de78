"""One database for several reviews, that outlives none of them and is found again after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient, WriteConcern

from tests.processes import until
from vouch_labels.review_ui.queue.database import parse_version, release_of, socket_of
from vouch_labels.review_ui.server import mongod as module
from vouch_labels.review_ui.server.mongod import DatabaseRecord, SharedDatabase
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.store.lock import ProcessId, is_alive

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.mongod


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "queue"
    yield folder
    if (folder / "server.json").exists():
        os.kill(record(folder).pid, signal.SIGKILL)


def record(folder: Path) -> DatabaseRecord:
    return DatabaseRecord.model_validate_json((folder / "server.json").read_bytes())


def runs(found: DatabaseRecord) -> bool:
    return bool(is_alive(ProcessId(found.place, found.pid, found.started)))


def test_the_last_one_out_stops_it(folder):
    with SharedDatabase(folder) as one:
        found = record(folder)
        with SharedDatabase(folder) as other:
            assert other.uri == one.uri
            assert record(folder) == found
        assert runs(found)
        one.__exit__(None, None, None)
        one.__enter__()
        assert not runs(found)
        found = record(folder)
    assert not runs(found)
    assert not (folder / "server.json").exists()


def test_another_than_who_started_it_can_be_the_last_one_out(folder):
    first, second = SharedDatabase(folder).__enter__(), SharedDatabase(folder).__enter__()
    found = record(folder)
    first.__exit__(None, None, None)
    assert runs(found)
    with MongoClient(second.uri) as client:
        client.admin.command("ping")
    second.__exit__(None, None, None)
    assert not runs(found)


def test_a_database_that_dies_is_started_again_at_its_address_with_what_was_written(folder):
    with SharedDatabase(folder) as used, SharedDatabase(folder) as other:
        uri = used.uri
        with MongoClient(uri) as client:
            client.vouch.get_collection("things", write_concern=WriteConcern(j=True)).insert_one({"_id": 1})
        assert not used.revive()
        os.kill(record(folder).pid, signal.SIGKILL)
        # It takes the system a while to end all its threads.
        until(used.revive)
        assert not other.revive()
        assert (used.uri, other.uri) == (uri, uri)
        with MongoClient(uri) as client:
            assert client.vouch.things.find_one() == {"_id": 1}
    assert not (folder / "server.json").exists()


def test_what_a_killed_review_left_behind_is_used_again_and_stopped(folder):
    code = f"""
import os, signal
from pathlib import Path
from vouch_labels.review_ui.server.mongod import SharedDatabase
SharedDatabase(Path({str(folder)!r})).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    found = record(folder)
    assert runs(found)
    with SharedDatabase(folder) as used:
        assert record(folder) == found
        assert used.uri == found.uri
    assert not runs(found)


def test_a_record_of_a_machine_before_its_reboot_is_replaced(folder):
    folder.mkdir()
    old = DatabaseRecord(place="elsewhere", pid=os.getpid(), started="1", uri="mongodb://x", version="6.0.5")
    (folder / "server.json").write_text(old.model_dump_json())
    with SharedDatabase(folder):
        assert record(folder) != old
    # Cut off, and of a version of Vouch whose servers had ports.
    for text in ("{", '{"place": "x", "pid": 1, "started": "1", "port": 1}'):
        (folder / "server.json").write_text(text)
        with SharedDatabase(folder) as used, MongoClient(used.uri) as client:
            client.admin.command("ping")


def test_nobody_else_reaches_it(folder):
    """No port of the machine leads to it, and its socket and its data are its owner's alone."""
    with SharedDatabase(folder) as used:
        found = record(folder)
        assert not psutil.Process(found.pid).net_connections("inet")
        socket_file = socket_of(used.uri)
        for path in (socket_file, socket_file.parent, folder, folder / "data", folder / "server.json"):
            assert path.stat().st_mode & 0o077 == 0, path
        assert parse_version(used.version) >= (6, 0)
        assert (folder / "mongodb-release").read_text() == f"{release_of(used.version)}\n"
        with MongoClient(used.uri, compressors="zlib") as client:
            client.admin.command("ping")
            options = client.admin.command("getCmdLineOpts")["parsed"]
        assert options["net"]["compression"]["compressors"] == "disabled"
    assert not socket_file.exists()


def test_sockets_that_killed_servers_left_are_removed(folder):
    with SharedDatabase(folder):
        pass
    left = folder / "data" / "0123.sock"
    left.touch()
    with SharedDatabase(folder):
        assert not left.exists()


def test_data_are_opened_by_the_release_that_wrote_them(folder, monkeypatch):
    with SharedDatabase(folder) as used:
        own = release_of(used.version)
    (folder / "mongodb-release").write_text("5.0\n")
    with pytest.raises(UserError, match=rf"was written by MongoDB 5\.0, and there is {own}"), SharedDatabase(folder):
        pass
    # Before releases were noted there was one.
    (folder / "mongodb-release").unlink()
    monkeypatch.setattr(module, "_FIRST_RELEASE", "5.0")
    with pytest.raises(UserError, match=r"was written by MongoDB 5\.0"), SharedDatabase(folder):
        pass
    monkeypatch.setattr(module, "_FIRST_RELEASE", own)
    with SharedDatabase(folder) as used:
        assert release_of(used.version) == own
