import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import HANG_S, until

ROOT = Path(__file__).parents[2]


@dataclass
class Prefect:
    """A server of its own, with nothing shared with the user's."""

    api: str
    environment: dict[str, str]
    folder: Path

    def run(self, *words: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    @contextmanager
    def started(self, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process in a group of its own, which is ended with all that it started."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "--no-prompt", *words],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            _end(process)


@pytest.fixture
def prefect(tmp_path) -> Iterator[Prefect]:
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_"))},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "COLUMNS": "200",
    }
    server = Prefect(environment["PREFECT_API_URL"], environment, tmp_path)
    words = ("server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    with server.started("server", *words) as process:
        _await(f"{server.api}/health", process, tmp_path / "server.log")
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            urllib.request.urlopen(url, timeout=HANG_S).close()
        except OSError:
            return False
        return True

    until(answers)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The group was made for this process alone. What does not end of itself after a while is killed.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    process.wait(HANG_S)
