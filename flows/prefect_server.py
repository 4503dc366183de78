"""Runs a Prefect server of this process's own: out of reach of the terminal's Ctrl-C, and never outliving the process.

Settings of other packages must stand before they are imported. Signals that end a command are found behind the errors
that hide them.
"""

import atexit
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, Final, NoReturn

from vouch_labels.flows import parent_death
from vouch_labels.schemas.errors import UserError, VouchError

HUNG_UP: Final = 129
INTERRUPTED: Final = 130
TERMINATED: Final = 143


@contextmanager
def embedded_server() -> Iterator[None]:
    """Give Prefect a server where no PREFECT_API_URL names one; it ends with this process.

    Prefect's client would start one by itself, as a child in our process group. The terminal sends Ctrl-C to all of
    that group: the server would be gone at once, and Prefect would try for minutes to report the interruption to it.
    Inside the block Prefect gives a server that has died seconds instead of minutes, and keeps no copy of the log
    there.

    Raises:
        UserError: There can be no folder for its database.
        VouchError: The server ended or hangs at its start; or it died, and what Prefect did in the block failed.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        PREFECT_UI_URL,
        temporary_settings,
    )

    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        yield
        return
    _make_home()
    patience = {PREFECT_CLIENT_MAX_RETRIES: 2, PREFECT_LOGGING_TO_API_ENABLED: False}
    try:
        # The server has no pages, so the log names none.
        with temporary_settings({PREFECT_API_URL: _start(), PREFECT_UI_URL: ""}, set_defaults=patience):
            yield
    except Exception as error:
        if isinstance(error, VouchError) or not has_died() or signal_behind(error) is not None:
            raise
        raise VouchError(
            "Prefect's embedded server died during the run (was it killed, or out of memory?); "
            "finished work is kept: run the same command again to resume"
        ) from error


def has_died() -> bool:
    """Whether the server was started here and is no more; Prefect would try for minutes to send it the rest."""
    return _Server.latest is not None and _Server.latest.process.poll() is not None


def leave_at_once(code: int) -> NoReturn:
    """End the process without what is left to do at its exit, and the server with it."""
    if _Server.latest is not None:
        _Server.latest.process.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _make_home() -> None:
    """Make the folder of the server's database: Prefect makes none above it, and waits in vain for a server without."""
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{home}: Prefect's database cannot be kept there ({error.strerror}); "
            "let PREFECT_HOME name a folder that can be written"
        ) from error


def _start() -> str:
    """Address of the API of this process's server, which is started where there is none that runs."""
    if _Server.latest is None or has_died():
        _Server.latest = _Server()
        atexit.register(_Server.latest.stop)
    _Server.latest.wait()  # also for one whose start was interrupted
    return f"http://127.0.0.1:{_Server.latest.port}/api"


class _Server:
    """A Prefect server in a session of its own that gets SIGTERM when we are killed, where the system can do that."""

    latest: ClassVar["_Server | None"] = None

    def __init__(self) -> None:
        import prefect
        from prefect.settings import get_current_settings

        # The port is ours from here on, and refuses connections until the server is ready to listen.
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port: int = bound.getsockname()[1]
            # Neither Python nor uvicorn looks for modules in the current folder, which may hold a prefect.py.
            command = [sys.executable, "-P", "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
            command += ["--app-dir", str(prefect.__module_path__.parent)]
            command += ["--fd", str(bound.fileno()), "--log-level", "error", "--lifespan", "on"]
            # The parent-death signal is tied to the starting thread: only the main thread lasts as long as the process.
            if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
                # Not in preexec_fn, which may deadlock where there are threads.
                command = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command]
            self.process = subprocess.Popen(  # noqa: S603 - the command is ours
                command,
                # Prefect's own names for a server without pages, schedules and other services.
                env=os.environ
                | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
                | get_current_settings().to_environment_variables(exclude_unset=True),
                pass_fds=[bound.fileno()],
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until the server answers; a VouchError says that it ended or hangs."""
        from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

        end = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        while not self._is_healthy():
            code = self.process.poll()
            if code is not None:
                raise VouchError(f"Prefect's embedded server ended with code {code} instead of starting")
            if time.monotonic() > end:
                self.stop()
                raise VouchError(
                    "Prefect's embedded server does not answer; look for a full disk or memory, or raise "
                    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
                )
            time.sleep(0.1)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End the server, by force after five seconds."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


DEFAULTS: Final = {
    # No package reports home.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FIFTYONE_DO_NOT_TRACK": "true",
    # The first embedded start migrates its database, which takes longer than Prefect's 20 seconds, and many times as
    # long on a busy machine. A server that ends instead of starting is seen at once.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1800",
    # The tokenizers' own threads deadlock after a fork, and complain.
    "TOKENIZERS_PARALLELISM": "false",
    # torch's idle threads (GNU OpenMP) spin for some milliseconds, each on a core. A fifteenth of that is as fast on an
    # idle machine, and 3.5 times as fast where another process wants the cores (measured: the demo, two cores).
    "GOMP_SPINCOUNT": "20000",
}


def prepare_environment() -> None:
    """Set what the user has not set; call it before prefect, transformers or fiftyone are imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def signal_behind(error: BaseException) -> tuple[int, str] | None:
    """Exit code (128 + number) and name of the signal that an error came of, as Prefect's do when one interrupts it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return INTERRUPTED, "interrupted"
        # Prefect's, by name: importing it takes seconds.
        if type(cause).__name__ == "TerminationSignal":
            return TERMINATED, "terminated"
        if isinstance(cause, SystemExit) and cause.code in (HUNG_UP, TERMINATED):
            return cause.code, "terminated"
        cause = cause.__context__
    return None
