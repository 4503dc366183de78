"""The MongoDB server, really run."""

import socket
import subprocess

import pytest
from pymongo import MongoClient

from review_ui import database
from review_ui.database import mongod, start_mongod, stop_mongod
from schemas.errors import UserError, VouchError


def port_of(uri):
    return int(uri.rpartition(":")[2])


def is_open(port, host="127.0.0.1"):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


@pytest.mark.mongod
def test_it_keeps_what_was_written_and_ends_with_the_block(tmp_path):
    with mongod(tmp_path / "db") as uri:
        with MongoClient(uri) as client:
            client.vouch.things.insert_one({"_id": 1, "name": "bolt"})
        assert not list(tmp_path.rglob("*.sock"))
        first = port_of(uri)
    assert not is_open(first)
    with mongod(tmp_path / "db") as uri, MongoClient(uri) as client:
        assert client.vouch.things.find_one() == {"_id": 1, "name": "bolt"}


@pytest.mark.mongod
def test_it_ends_when_the_block_fails(tmp_path):
    seen = []

    def broken():
        with mongod(tmp_path / "db") as uri:
            seen.append(port_of(uri))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        broken()
    assert not is_open(seen[0])


@pytest.mark.mongod
def test_a_folder_serves_one_server_at_a_time(tmp_path):
    with mongod(tmp_path / "db"):
        with pytest.raises(UserError, match="another mongod uses"), mongod(tmp_path / "db"):
            pass
        with mongod(tmp_path / "other") as uri:
            assert is_open(port_of(uri))


@pytest.mark.mongod
def test_a_taken_port_is_left_to_its_owner(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports = [taken.getsockname()[1], free.getsockname()[1]]
        monkeypatch.setattr(database, "_free_port", lambda: ports.pop(0))
        with mongod(tmp_path / "db") as uri:
            assert port_of(uri) != taken.getsockname()[1]


def test_a_platform_without_mongod_is_told_what_to_install(tmp_path, monkeypatch):
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
    note = tmp_path / "pid"
    binary.write_text(f"#!/bin/sh\necho $$ > '{note}'\nexec sleep 600\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setattr(database, "START_TIMEOUT_S", 3.0)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with pytest.raises(VouchError, match="did not answer"), mongod(tmp_path / "db"):
        pass
    pid = note.read_text().strip()
    assert subprocess.run(["/bin/kill", "-0", pid], capture_output=True).returncode != 0


@pytest.mark.parametrize(
    "script",
    [
        "exit 62",
        # What mongod 6.0 says of files that a later version wrote.
        """echo 'This may be due to an unsupported upgrade or downgrade.' > "$log"; exit 14""",
    ],
)
def test_data_of_another_version_are_told_from_a_failure(tmp_path, monkeypatch, script):
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    binary.write_text(f"#!/bin/sh\nlog='{tmp_path / 'db' / 'mongod.log'}'\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with pytest.raises(UserError, match="another version of MongoDB"), mongod(tmp_path / "db"):
        pass


@pytest.mark.mongod
def test_a_port_that_is_asked_for_is_kept_or_said_to_be_taken(tmp_path):
    process, uri = start_mongod(tmp_path / "db")
    stop_mongod(process)
    process, again = start_mongod(tmp_path / "db", port_of(uri))
    stop_mongod(process)
    assert again == uri
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(VouchError, match="has taken port"):
            start_mongod(tmp_path / "db", taken.getsockname()[1])


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
    words = f"{binary}: error while loading shared libraries: {library}: cannot open shared object file"
    binary.write_text(f"#!/bin/sh\necho '{words}: No such file or directory' >&2\nexit 127\n")
    binary.chmod(0o755)
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
    with pytest.raises(UserError, match=f"system library {library}, which is missing; {install}"):
        start_mongod(tmp_path / "db")
