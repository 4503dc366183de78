"""Gives flows a Prefect server, the user's or one of this process's own, and never lets the work depend on it.

Its own is out of reach of the terminal's Ctrl-C and never outlives the process. Settings of other packages must stand
before they are imported. Signals that end a command are found behind the errors that hide them.
"""

import atexit
import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, Final, Generic, NoReturn, Self, TypeVar

from vouch_labels.flows import parent_death
from vouch_labels.schemas.errors import UserError, VouchError

logger = logging.getLogger(__name__)

T = TypeVar("T")

BUSY: Final = (429, 502, 503, 504)
"""Answers of a server, or of a proxy before it, that will soon be there."""
BUSY_S: Final = 60.0
"""How long a run waits at its start for a server that answers so."""
GOODBYE_S: Final = 5.0
"""How long Prefect may try to report that a signal ended the work."""

HUNG_UP: Final = 129
INTERRUPTED: Final = 130
TERMINATED: Final = 143


@contextmanager
def prefect_server() -> Iterator[None]:
    """Give Prefect a server: the one that PREFECT_API_URL names, else one that ends with this process.

    Prefect's client would start one by itself, as a child in our process group. The terminal sends Ctrl-C to all of
    that group: the server would be gone at once, and Prefect would try for minutes to report the interruption to it.
    Inside the block Prefect gives a server that is away seconds instead of minutes, since no work waits for it; of
    our own server it asks no copy of the log.

    Raises:
        UserError: PREFECT_API_URL names nothing that answers as Prefect does, or our own has no place for its database.
        VouchError: The named server is busy for long; or our own ended or hangs at its start.
    """
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        PREFECT_UI_URL,
        temporary_settings,
    )

    patience = {PREFECT_CLIENT_MAX_RETRIES: 2, PREFECT_API_REQUEST_TIMEOUT: 20}
    named = PREFECT_API_URL.value()
    if named or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        with temporary_settings(set_defaults=patience):
            if named:
                _wait_for_named(named)
                _Server.named = True
            yield
        return
    _make_home()
    # The server has no pages, so the log names none.
    own = {PREFECT_API_URL: _start(), PREFECT_UI_URL: ""}
    with temporary_settings(own, set_defaults=patience | {PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield


class Outcome(Generic[T]):
    """What became of a flow's work, whatever Prefect's server hears of it.

    The flow's body does its work within the block `with outcome:` and sets the result at the end of it. Prefect
    reports before and after; where its server is away then, it raises errors of its own over the result, or over the
    error that the work ended with.
    """

    def __init__(self) -> None:
        """Nothing has been done yet."""
        self.result: T | None = None
        self.error: BaseException | None = None
        self._told = threading.Event()

    def __enter__(self) -> Self:
        """Begin the work."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Note how the work ended; after a signal Prefect has seconds to report it."""
        self.error = error
        ended = None if error is None else signal_behind(error)
        if ended is not None and threading.current_thread() is threading.main_thread():
            threading.Thread(target=self._hurry, args=(ended[0] - 128,), daemon=True).start()

    def _hurry(self, number: int) -> None:
        # As an impatient user would: what is under way in Prefect's client is broken off.
        while not self._told.wait(GOODBYE_S):
            os.kill(os.getpid(), number)

    def of(self, flow: Callable[[], object]) -> T:
        """Run the flow; give the result of its work, or raise the work's error.

        Raises:
            VouchError: The server is away or busy, and so the work was not started.
        """
        of_prefect: Exception | None = None
        try:
            flow()
        except Exception as error:
            if signal_behind(error) is not None:
                raise
            of_prefect = error
        finally:
            self._told.set()
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise _not_started(of_prefect) from of_prefect
        if of_prefect is not None:
            logger.info("Prefect did not hear of the end", exc_info=of_prefect)
            logger.warning("the work is done, but Prefect did not hear of it: %s", _reason(of_prefect))
        return self.result


def is_gone() -> bool:
    """Whether the server that flows reported to answers no more; Prefect would try for minutes to send it the rest."""
    if _Server.latest is not None and has_died():
        return True
    if not _Server.named:
        return False
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 3}):
        return get_client(sync_client=True).api_healthcheck() is not None


def has_died() -> bool:
    """Whether the server was started here and is no more."""
    return _Server.latest is not None and _Server.latest.process.poll() is not None


def _wait_for_named(url: str) -> None:
    """Make sure that the server of PREFECT_API_URL answers, and is one of Prefect; a busy one is waited for."""
    from prefect.client.orchestration import get_client

    from vouch_labels.tasks.store.s3 import without_secrets

    end = time.monotonic() + BUSY_S
    while True:
        try:
            with get_client(sync_client=True) as client:
                problem = client.api_healthcheck()
        except Exception as error:
            problem = error
        if problem is None:
            return
        status = _status(problem)
        if status not in BUSY:
            address = without_secrets(url)
            if status in (401, 403):
                raise UserError(
                    f"the Prefect server at {address} does not let us in ({status}); "
                    "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
                ) from problem
            raise UserError(
                f"no Prefect server answers at {address} ({_reason(problem)}); start it, correct PREFECT_API_URL, "
                "or unset that: a run then brings a server of its own"
            ) from problem
        if time.monotonic() > end:
            raise _busy(status) from problem
        logger.warning("Prefect's server is busy (%s); waiting", status)
        time.sleep(1)


def _not_started(error: Exception | None) -> Exception:
    """What to raise where the work was not started: a line if it is the server's fault."""
    import httpx

    if error is None:
        return VouchError("Prefect did not let the run begin; look at it in Prefect, and run again")
    if not any(isinstance(cause, httpx.HTTPError) for cause in _chain(error)):
        return error
    status = _status(error)
    if status in BUSY:
        return _busy(status)
    return VouchError(f"Prefect took no new run ({_reason(error)}); nothing was started: run the same command again")


def _busy(status: int) -> VouchError:
    return VouchError(f"Prefect's server is busy (it answers {status}); nothing was started: run again later")


def _status(error: BaseException) -> int | None:
    import httpx

    causes = (cause for cause in _chain(error) if isinstance(cause, httpx.HTTPStatusError))
    return next((cause.response.status_code for cause in causes), None)


def _reason(error: BaseException) -> str:
    """One line: the status, or what the innermost of the errors says."""
    from vouch_labels.tasks.store.s3 import without_secrets

    if has_died():
        return "its embedded server died (was it killed, or out of memory?)"
    status = _status(error)
    if status is not None:
        return f"it answers {status}"
    causes = list(_chain(error))
    # What httpx wraps says most in the fewest words, "Connection refused".
    text = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    return without_secrets(text)[:200]


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


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
    named: ClassVar[bool] = False
    """Whether flows of this process reported to a server of the user's."""

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
