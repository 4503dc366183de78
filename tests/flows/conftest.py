"""A Prefect server, for the tests that run flows; and the command line in this process."""

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from tests.processes import HANG_S
from vouch_labels.flows.cli.app import app
from vouch_labels.flows.prefect_server import prepare_environment

prepare_environment()


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that the tests of this process share, with a database of its own."""
    from prefect.events.worker import EventsWorker
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    database = tmp_path_factory.mktemp("prefect") / "prefect.db"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}"}):
        server = SubprocessASGIServer(port)
        server.start(timeout=HANG_S)
    yield server.api_url
    # What is still to be sent would be tried for long where the server is gone.
    EventsWorker.drain_all()
    server.stop()


@pytest.fixture(scope="module")
def prefect_server(prefect_api: str) -> Iterator[None]:
    """Lets the flows of a module use the server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def log_file(tmp_path, monkeypatch):
    """Where commands in this process log; the root logger is put back as it was."""
    path = tmp_path / "logs" / "vouch.log"
    monkeypatch.setenv("VOUCH_LOG", str(path))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield path
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def vouch(log_file):
    """Runs the command line in this process."""

    def call(*words) -> Answer:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})
        return Answer(result.exit_code, result.stdout, result.stderr)

    return call
