"""The MongoDB server, really run.

What can be wrong with a database, each reported in one line without the password.
"""

import itertools
import socket
import subprocess
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from vouch_labels.review_ui.queue import database
from vouch_labels.review_ui.queue import database as module
from vouch_labels.review_ui.queue.database import (
    connect,
    mongod,
    mongod_binary,
    socket_of,
    start_mongod,
    stop_mongod,
    translated_errors,
    version_risk,
)
from vouch_labels.review_ui.queue.fill import fill_queue
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.schemas.errors import UserError, VouchError


def is_open(uri):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(socket_of(uri))) == 0


@pytest.mark.mongod
def test_it_keeps_what_was_written_and_ends_with_the_block(tmp_path):
    with mongod(tmp_path / "db") as uri:
        with MongoClient(uri) as client:
            client.vouch.things.insert_one({"_id": 1, "name": "bolt"})
        assert is_open(uri)
    assert not is_open(uri)
    assert not list(tmp_path.rglob("*.sock"))
    with mongod(tmp_path / "db") as uri, MongoClient(uri) as client:
        assert client.vouch.things.find_one() == {"_id": 1, "name": "bolt"}


@pytest.mark.mongod
def test_it_ends_when_the_block_fails(tmp_path):
    seen = []

    def broken():
        with mongod(tmp_path / "db") as uri:
            seen.append(uri)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert not is_open(seen[0])


@pytest.mark.mongod
def test_a_folder_serves_one_server_at_a_time(tmp_path):
    with mongod(tmp_path / "db") as first:
        with pytest.raises(UserError, match="another mongod uses"), mongod(tmp_path / "db"):
            pass
        assert is_open(first)
        with mongod(tmp_path / "other") as uri:
            assert is_open(uri)


@pytest.mark.mongod
def test_where_a_path_is_too_long_for_a_socket_it_is_elsewhere_and_private(tmp_path):
    folder = tmp_path / ("x" * 100)
    with mongod(folder) as uri:
        path = socket_of(uri)
        assert not path.is_relative_to(tmp_path)
        assert path.parent.stat().st_mode & 0o077 == 0
        assert is_open(uri)
    assert not path.parent.exists()


@pytest.fixture
def two_mongods(tmp_path, monkeypatch):
    """One in FiftyOne's package and one on the PATH, which tell the versions that they are given."""

    def make(bundled, installed):
        found = []
        for folder, version in (("db/bin", bundled), ("path", installed)):
            binary = tmp_path / folder / "mongod"
            binary.parent.mkdir(parents=True, exist_ok=True)
            binary.write_text(f"#!/bin/sh\necho 'db version v{version}'\n")
            binary.chmod(0o755)
            found.append(binary)
        package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(database, "find_spec", lambda name: package)
        monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
        return found

    return make


def test_the_newest_mongod_is_used_for_new_data(two_mongods):
    bundled, installed = two_mongods("6.0.5", "8.0.17")
    assert mongod_binary() == installed
    bundled, installed = two_mongods("7.0.28", "6.0.9")
    assert mongod_binary() == bundled


def test_data_of_a_release_are_left_to_it(two_mongods):
    bundled, installed = two_mongods("6.0.5", "8.0.17")
    assert mongod_binary("6.0") == bundled
    assert mongod_binary("8.0") == installed
    with pytest.raises(
        UserError, match=r"written by MongoDB 7\.0, and there is 6\.0, 8\.0; put a mongod 7\.0 on the PATH"
    ):
        mongod_binary("7.0")
    bundled, installed = two_mongods("6.0.5", "6.0.27")
    assert mongod_binary("6.0") == installed


@pytest.mark.parametrize(
    ("version", "faults"),
    [
        ("6.0.5", ["no fixes any more (since July 2025)", "CVE-2025-14847"]),
        ("6.0.27", ["no fixes any more (since July 2025)"]),
        ("4.2.1", ["no fixes any more (since long ago)", "CVE-2025-14847"]),
        ("7.0.27", ["CVE-2025-14847"]),
        ("8.0.16", ["CVE-2025-14847"]),
        ("8.2.2", ["CVE-2025-14847"]),
        ("7.0.28", []),
        ("8.0.17", []),
        ("8.0.18-rc1", []),
        ("8.2.3", []),
        ("9.0.0", []),
        ("", []),
    ],
)
def test_the_risk_of_a_version_is_told(version, faults):
    text = version_risk(version)
    assert bool(text) == bool(faults)
    assert all(fault in text for fault in faults)
    for fault in ("no fixes", "CVE-2025-14847"):
        assert (fault in text) == any(fault in one for one in faults)


def test_a_platform_without_mongod_is_reported_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install mongod"), mongod(tmp_path / "db"):
        pass


def test_a_mongod_of_the_path_is_used_where_none_is_bundled(tmp_path, monkeypatch):
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\nexit 7\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with pytest.raises(VouchError, match="code 7"), mongod(tmp_path / "db"):
        pass


def test_a_server_that_never_answers_is_ended(tmp_path, monkeypatch):
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\nexec sleep 6000\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setattr(database, "START_TIMEOUT_S", 0.1)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *command, **how: started.append(popen(*command, **how)) or started[-1]
    )
    with pytest.raises(VouchError, match="neither answered nor logged"), mongod(tmp_path / "db"):
        pass
    assert started[0].returncode is not None


def test_a_server_that_recovers_is_waited_for_as_long_as_it_logs(tmp_path, monkeypatch):
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\nexec sleep 6000\n")
    binary.chmod(0o755)
    log, tries = tmp_path / "db" / "mongod.log", iter(range(20))
    clock = itertools.count(0, database.START_TIMEOUT_S // 2)

    def ping(_):
        """Answered in the end; until then every question is another line in the log."""
        if next(tries, None) is not None:
            with log.open("a") as file:
                file.write("recovering\n")
            raise ServerSelectionTimeoutError

    client = SimpleNamespace(admin=SimpleNamespace(command=ping))
    asked = MagicMock()
    asked.__getitem__.return_value.return_value.__enter__.return_value = client
    monkeypatch.setattr(database, "MongoClient", asked)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with mongod(tmp_path / "db"):
        assert next(tries, None) is None


@pytest.mark.parametrize(
    "script",
    [
        "exit 62",
        # What mongod 6.0 logs about files that a later version wrote.
        """echo 'This may be due to an unsupported upgrade or downgrade.' > "$log"; exit 14""",
    ],
)
def test_data_of_another_version_are_no_other_failure(tmp_path, monkeypatch, script):
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    binary.write_text(f"#!/bin/sh\nlog='{tmp_path / 'db' / 'mongod.log'}'\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with pytest.raises(UserError, match="another version of MongoDB"), mongod(tmp_path / "db"):
        pass


@pytest.mark.mongod
def test_a_server_can_take_over_the_address_of_one_that_died(tmp_path):
    process, uri = start_mongod(tmp_path / "db")
    process.kill()
    process.wait()
    process, again = start_mongod(tmp_path / "db", uri)
    assert again == uri
    assert is_open(uri)
    stop_mongod(process)


@pytest.mark.parametrize(
    ("library", "install"),
    [
        ("libcurl.so.4", "on Debian and Ubuntu: apt install libcurl4"),
        ("libodd.so.1", "install the package that brings"),
    ],
)
def test_a_missing_system_library_is_named_with_its_package(tmp_path, monkeypatch, library, install):
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    message = f"{binary}: error while loading shared libraries: {library}: cannot open shared object file"
    binary.write_text(f"#!/bin/sh\necho '{message}: No such file or directory' >&2\nexit 127\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with pytest.raises(UserError, match=f"system library {library}, which is missing; {install}"):
        start_mongod(tmp_path / "db")


SECRET = "correct-horse"


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_away_is_reported(monkeypatch, free_port):
    monkeypatch.setattr(module, "WAIT_S", 0.3)
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{free_port} does not answer; start it") as caught:
        connect(f"mongodb://ann:{SECRET}@127.0.0.1:{free_port}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        f"mongodb://ann:{SECRET}@127.0.0.1:port",
        f"mongodb://ann:{SECRET}/x@127.0.0.1:1",
        f"postgres://ann:{SECRET}@127.0.0.1",
        f"mongodb://ann:{SECRET}@",
        "",
    ],
)
def test_an_address_that_is_none_is_reported_without_its_password(address):
    with pytest.raises(UserError, match=r"cannot be read; write mongodb://HOST:PORT") as caught:
        connect(address)
    assert SECRET not in str(caught.value)


def test_a_password_that_is_refused_is_reported(uri):
    with pytest.raises(UserError, match="refuses access; check user and password") as caught:
        connect(uri.replace("mongodb://", f"mongodb://ann:{SECRET}@"))
    assert SECRET not in str(caught.value)


def test_a_user_without_rights_is_reported():
    with pytest.raises(UserError, match="refuses access"), translated_errors("host:1"):
        raise OperationFailure("not authorized on vouch to execute command", 13)


def test_any_other_failure_is_one_line():
    with (
        pytest.raises(VouchError, match=r"the review database at host:1 failed: no space left$"),
        translated_errors("host:1"),
    ):
        raise OperationFailure("many\nlines", 14031, {"errmsg": "no space\nleft"})


def test_a_queue_of_a_newer_version_is_refused_and_left_alone(planned, uri):
    outcome = planned.fill()
    database = connect(uri)
    database.queues.update_one({"_id": outcome.queue}, {"$set": {"schema": 99}})
    for attempt in (lambda: Queue.open(uri, outcome.queue), lambda: fill_queue(planned.campaign, uri)):
        with pytest.raises(UserError, match="written by a newer version of Vouch"):
            attempt()
    assert database.queues.find_one()["schema"] == 99
    database.close()


def test_a_server_that_goes_away_is_reported_by_every_call(make_queue, monkeypatch):
    queue = make_queue(1)
    queue.close()
    calls = [
        lambda: queue.take("ann", 1), lambda: queue.held("ann"), lambda: queue.renew("ann"), lambda: queue.undo("ann"),
        lambda: progress(queue, "ann"), lambda: queue.holds("ann", "x"), lambda: queue.give_back("ann"),
        lambda: queue.log("ann", "PATCH", "/", b"", 200), lambda: queue.has_image("00000.jpg"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(VouchError, match="the review database at /"):
            call()
