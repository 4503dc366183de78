"""Prefect's server: ours is apart from the terminal and gone when Vouch is; no work depends on one that is away."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from asyncio import CancelledError
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit
from uuid import uuid4

import prefect
import psutil
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.utilities.urls import url_for

from tests.flows import held_run
from tests.flows.held_run import SHARDS
from tests.processes import HANG_S
from vouch_labels.flows import prefect_server as module
from vouch_labels.flows.prefect_server import DEFAULTS, prepare_environment, signal_behind
from vouch_labels.flows.run import export_labels, plan_shards, run_campaign, run_shard
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.tasks.shard.events import Progress


@dataclass
class Typed:
    """A run in a terminal of its own."""

    pid: int
    terminal: int
    seen: str = ""

    def read(self) -> bool:
        """Take what is on the screen; whether the terminal is still open."""
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:
                return False
        return True

    def wait_for(self, words: str) -> None:
        while words not in self.seen:
            assert self.read(), self.seen

    def code(self) -> int:
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def servers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.pid).children() if "uvicorn" in child.cmdline()]


@pytest.fixture
def environment(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"VOUCH_LOG": str(tmp_path / "log"), "PREFECT_HOME": str(tmp_path / "prefect"), "TERM": "xterm"}


@pytest.fixture
def command(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 5 * SHARDS)
    return ["run", str(write_campaign(run={"shard_size": 5}))]


@pytest.fixture
def go_on(tmp_path):
    """A file that a run waits for before its last shard."""
    return tmp_path / "go on"


@pytest.fixture
def typed(command, environment, go_on):
    """Starts a run in a terminal and gives it when it labels."""
    words = [sys.executable, held_run.__file__, str(go_on), *command]
    pid, terminal = pty.fork()
    if pid == 0:
        # A test that runs in the background may have been started with these ignored, and children inherit that.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execve(words[0], words, environment)
    run = Typed(pid, terminal)
    run.wait_for("labelling")
    yield run
    for end in (lambda: os.kill(pid, signal.SIGKILL), lambda: os.waitpid(pid, 0), lambda: os.close(terminal)):
        with suppress(OSError):
            end()


def resumes(command, environment) -> None:
    words = [sys.executable, "-m", "vouch_labels.flows.cli", *command, "--json"]
    again = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=HANG_S, check=True)
    assert json.loads(again.stdout)["done"] == 5 * SHARDS


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_interrupts_vouch_and_not_its_server(typed, command, environment, tmp_path):
    [server] = typed.servers()
    assert os.getsid(server.pid) == server.pid
    os.write(typed.terminal, b"\x03")
    assert typed.code() == 130
    psutil.wait_procs([server], timeout=HANG_S)
    assert not server.is_running()
    assert typed.seen.count("vouch: interrupted; finished work is kept") == 1
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\^C", "", typed.seen).split("vouch: ")[-1]
    assert last.strip() == "interrupted; finished work is kept: run the same command again to resume"
    assert "Error" not in typed.seen
    assert "Traceback" not in typed.seen + (tmp_path / "log").read_text()
    resumes(command, environment)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.1, 1.0])
def test_an_impatient_second_ctrl_c_neither_hangs_nor_shows_a_traceback(typed, pause):
    [server] = typed.servers()
    os.write(typed.terminal, b"\x03")
    time.sleep(pause)
    with suppress(OSError):  # it may have ended already
        os.write(typed.terminal, b"\x03")
    # The interpreter's very last steps heed nothing any more: SIGINT itself ends them, which shells show as 130 too.
    assert typed.code() in (130, -signal.SIGINT)
    assert typed.seen.count("vouch: interrupted") == 1
    assert "Traceback" not in typed.seen
    psutil.wait_procs([server], timeout=HANG_S)
    assert not server.is_running()


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "closed",
        pytest.param(
            "killed", marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
        ),
    ],
)
def test_the_server_ends_with_vouch(typed, how):
    [server] = typed.servers()
    if how == "killed":
        os.kill(typed.pid, signal.SIGKILL)
        os.waitpid(typed.pid, 0)
    else:
        os.close(typed.terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(typed.pid, 0)[1]) == 129
    psutil.wait_procs([server], timeout=HANG_S)
    assert not server.is_running()


@pytest.mark.slow
def test_a_server_that_dies_is_told_in_a_line(typed, command, environment, go_on):
    [server] = typed.servers()
    server.kill()
    go_on.touch()
    assert typed.code() == 0
    words = " ".join(typed.seen.split())
    assert "the work is done, but Prefect did not hear of it: its embedded server died" in words
    assert "Error" not in words
    resumes(command, environment)


@pytest.fixture
def named_server(environment):
    """A server of the user's, which is not told to end with Vouch."""
    from prefect.server.api.server import SubprocessASGIServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {PREFECT_HOME: environment["PREFECT_HOME"]}
    with temporary_settings(settings, restore_defaults={PREFECT_SERVER_DATABASE_CONNECTION_URL}):
        server = SubprocessASGIServer(port)
        server.start(timeout=HANG_S)
    environment["PREFECT_API_URL"] = server.api_url
    process = psutil.Process(server.server_process.pid)
    yield process
    with suppress(psutil.NoSuchProcess):
        process.resume()
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "suspend"])
def test_a_named_server_that_is_gone_does_not_hold_up_a_terminated_run(named_server, typed, how):
    getattr(named_server, how)()
    os.kill(typed.pid, signal.SIGTERM)
    assert typed.code() == 143
    assert typed.seen.count("vouch: terminated; finished work is kept") == 1
    assert "Error" not in typed.seen


@pytest.mark.slow
def test_a_named_server_that_dies_takes_nothing_from_a_run(named_server, typed, go_on, command, environment):
    named_server.kill()
    go_on.touch()
    assert typed.code() == 0
    assert "the work is done, but Prefect did not hear of it" in " ".join(typed.seen.split())
    assert "Error" not in typed.seen
    del environment["PREFECT_API_URL"]
    resumes(command, environment)


class Answering:
    """A server on loopback that answers with these statuses, one after the other, the last one for good."""

    def __init__(self, statuses) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                body = f'"{prefect.__version__}"'.encode() if self.path.endswith("version") else b"true"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://user:hunter2@127.0.0.1:{self.server.server_port}/api"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def answering(*statuses):
    with closing(Answering(list(statuses))) as server, temporary_settings({PREFECT_API_URL: server.url, **AT_ONCE}):
        yield


AT_ONCE = {PREFECT_CLIENT_MAX_RETRIES: 0}


@pytest.mark.parametrize(
    ("statuses", "kind", "words"),
    [
        ([401], UserError, "does not let us in (401); set PREFECT_API_AUTH_STRING"),
        ([404], UserError, "it answers 404); start it, correct PREFECT_API_URL"),
        ([503], VouchError, "is busy (it answers 503); nothing was started: run again later"),
    ],
)
def test_a_named_server_that_is_of_no_use_is_told_in_a_line(monkeypatch, statuses, kind, words):
    monkeypatch.setattr(module, "BUSY_S", 0)
    with answering(*statuses), pytest.raises(VouchError) as raised, module.prefect_server():
        pass
    assert type(raised.value) is kind
    assert words in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_busy_server_is_waited_for(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with answering(503, 502, 200), module.prefect_server():
        pass


def test_a_server_that_is_away_is_told_in_a_line(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:hunter2@127.0.0.1:{taken.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(UserError) as raised:
            run_campaign(write_campaign())
    assert "no Prefect server answers at http://127.0.0.1:" in str(raised.value)
    assert "unset that: a run then brings a server of its own" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert not list((tmp_path / "workspace").rglob("*.parquet")), "nothing was planned"


class Gate:
    """Stands before a server; what comes through it can be cut off, or be told that the server is busy."""

    def __init__(self, port: int) -> None:
        self.way = "open"
        self._connections = []
        gate = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                if gate.way == "cut":
                    return
                if gate.way == "busy":
                    self.request.recv(65536)
                    self.request.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                with socket.create_connection(("127.0.0.1", port)) as server:
                    gate._connections += [self.request, server]
                    back = threading.Thread(target=gate._pass, args=(server, self.request), daemon=True)
                    back.start()
                    gate._pass(self.request, server)
                    back.join()

        self.server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @staticmethod
    def _pass(source, target) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def shut(self, way: str) -> None:
        self.way = way
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def gate(prefect_api):
    from prefect.events.worker import EventsWorker

    with closing(Gate(urlsplit(prefect_api).port)) as gate, temporary_settings({PREFECT_API_URL: gate.url, **AT_ONCE}):
        yield gate
        gate.way = "open"
        EventsWorker.drain_all()


@pytest.mark.parametrize("way", ["cut", "busy"])
def test_what_becomes_of_the_server_in_mid_run_takes_nothing_from_it(
    tmp_path, make_images, write_campaign, gate, caplog, way
):
    make_images(tmp_path / "images", 12)
    summary = run_campaign(write_campaign(), on_event=lambda event: gate.shut(way) if type(event) is Progress else None)
    assert (summary.done, summary.pending) == (12, 0)
    assert summary.export is not None
    assert "the work is done, but Prefect did not hear of it" in caplog.text


def test_the_works_own_error_comes_before_prefects(tmp_path, make_images, write_campaign, gate, monkeypatch):
    make_images(tmp_path / "images", 4)

    def fail(*_: object) -> None:
        gate.shut("cut")
        raise UserError("the bucket refuses access")

    monkeypatch.setattr("vouch_labels.flows.run.process_shard", fail)
    with pytest.raises(UserError, match="the bucket refuses access"):
        run_campaign(write_campaign())


def test_a_server_that_goes_before_the_work_is_told_in_a_line(tmp_path, make_images, write_campaign, gate, monkeypatch):
    make_images(tmp_path / "images", 1)
    wait = module._wait_for_named

    def wait_and_shut(url: str) -> None:
        wait(url)
        gate.shut("busy")

    monkeypatch.setattr(module, "_wait_for_named", wait_and_shut)
    with pytest.raises(VouchError, match=r"is busy \(it answers 503\); nothing was started"):
        run_campaign(write_campaign())


def test_a_server_of_the_users_that_is_away_is_not_waited_for_at_the_end(gate, monkeypatch):
    monkeypatch.setattr(module._Server, "latest", None)
    monkeypatch.setattr(module._Server, "named", False)
    assert not module.is_gone()
    with module.prefect_server():
        pass
    assert not module.is_gone()
    gate.shut("cut")
    assert module.is_gone()


def test_tasks_ask_the_server_for_no_slot():
    assert not any(task.tags for task in (plan_shards, run_shard, export_labels))


@pytest.fixture
def no_server(monkeypatch):
    monkeypatch.setattr(module._Server, "latest", None)
    monkeypatch.setattr("atexit.register", lambda stop: None)


@pytest.mark.usefixtures("no_server")
def test_a_server_that_ends_instead_of_starting_is_not_waited_for(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 4\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(VouchError, match="ended with code 4 instead of starting"):
        module._start()


@pytest.mark.usefixtures("no_server")
def test_a_server_that_hangs_at_its_start_is_ended(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 1800\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    settings = {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 0}
    with temporary_settings(settings), pytest.raises(VouchError, match="embedded server does not answer"):
        module._start()
    assert module.has_died()


@pytest.mark.slow
@pytest.mark.usefixtures("no_server")
def test_the_server_imports_nothing_of_the_current_folder(tmp_path, monkeypatch):
    for name in ("prefect", "uvicorn", "sqlalchemy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    with temporary_settings({PREFECT_HOME: tmp_path / "home"}, restore_defaults={PREFECT_API_URL}):
        module._make_home()
        try:
            assert module._start().startswith("http://127.0.0.1:")
        finally:
            module._Server.latest.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("no_server")
def test_one_server_serves_a_process_and_another_follows_one_that_died(tmp_path):
    with temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL}):
        try:
            address = module._start()
            assert module._start() == address
            first = module._Server.latest
            first.stop()
            assert module.has_died()
            module._start()
            assert module._Server.latest is not first
            assert not module.has_died()
        finally:
            module._Server.latest.stop()


def test_prefect_gives_a_server_that_died_seconds(monkeypatch):
    """Were it to try for as long as it likes, a run whose server is killed would go on for five minutes."""
    monkeypatch.setattr(module, "_start", lambda: "http://127.0.0.1:1/api")
    users = temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}, restore_defaults={PREFECT_API_URL})
    with users, module.prefect_server():
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 2


def test_the_log_links_no_page_of_a_server_without_pages(monkeypatch):
    monkeypatch.setattr(module, "_start", lambda: "http://127.0.0.1:1/api")
    users = temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}, restore_defaults={PREFECT_API_URL})
    with users, module.prefect_server():
        assert url_for("flow-run", uuid4()) is None


def test_its_database_has_a_folder_also_where_the_home_folder_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_start", lambda: "http://127.0.0.1:1/api")
    home = tmp_path / "home" / ".prefect"
    with temporary_settings({PREFECT_HOME: home}), module.prefect_server():
        assert home.is_dir()
    (tmp_path / "file").touch()
    with (
        temporary_settings({PREFECT_HOME: tmp_path / "file" / ".prefect"}),
        pytest.raises(UserError, match="let PREFECT_HOME name a folder"),
        module.prefect_server(),
    ):
        pass


def test_a_named_server_is_used_and_given_seconds_too(monkeypatch):
    monkeypatch.setattr(module, "_start", lambda: pytest.fail("no server is needed"))
    monkeypatch.setattr(module, "_wait_for_named", lambda url: None)
    monkeypatch.setattr(module._Server, "named", False)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), module.prefect_server():
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 2
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 7}),
        module.prefect_server(),
    ):
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 7


def test_what_the_user_sets_stays_set(monkeypatch):
    monkeypatch.setattr(module, "_start", lambda: "http://127.0.0.1:1/api")
    users = temporary_settings(
        {PREFECT_CLIENT_MAX_RETRIES: 7, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True},
        restore_defaults={PREFECT_API_URL},
    )
    with users, module.prefect_server():
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 7


def test_analytics_are_off_unless_the_user_says_otherwise(monkeypatch):
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    prepare_environment()

    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for name in DEFAULTS:
        monkeypatch.setenv(name, os.environ[name])


class TerminationSignal(BaseException):
    """Named as Prefect's."""


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (KeyboardInterrupt(), (130, "interrupted")),
        (TerminationSignal(), (143, "terminated")),
        (SystemExit(143), (143, "terminated")),
        (SystemExit(129), (129, "terminated")),
        (SystemExit(1), None),
        (CancelledError(), None),
        (KeyError(), None),
        (None, None),
    ],
)
def test_a_signal_is_seen_by_itself_and_behind_other_errors(cause, expected):
    middle, outer = CancelledError(), ValueError()
    outer.__context__, middle.__context__ = middle, cause
    assert signal_behind(outer) == expected
    if cause is not None:
        assert signal_behind(cause) == expected
