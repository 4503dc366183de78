"""Runs Prefect's embedded server: out of reach of the terminal's Ctrl-C, and never outliving this process.

Settings of other packages must stand before they are imported. Signals that end a command are told from the errors
that hide them.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

from vouch_labels.flows import parent_death
from vouch_labels.schemas.errors import UserError, VouchError

logger = logging.getLogger(__name__)

_PORT_TAKEN: Final = 3
"""What uvicorn ends with where its port is taken; Prefect tries another one."""

HUNG_UP: Final = 129
INTERRUPTED: Final = 130
TERMINATED: Final = 143


@contextmanager
def embedded_server() -> Iterator[None]:
    """Start the server that Prefect needs where no PREFECT_API_URL names one; it ends with this process.

    Prefect's client would start it by itself, as a child in our process group. The terminal sends Ctrl-C to all of
    that group: the server would be gone at once, and Prefect would try for minutes to tell it of the interruption.
    Inside the block Prefect gives a server that has died seconds instead of minutes, and keeps no copy of the log
    there, since nobody reads it.

    Raises:
        RuntimeError: The server hangs at its start.
        UserError: There can be no folder for its database.
        VouchError: The server ended at its start; or it died, and what Prefect did in the block failed.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_LOGGING_TO_API_ENABLED,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        yield
        return
    _make_home()
    _start()
    try:
        with temporary_settings(set_defaults={PREFECT_CLIENT_MAX_RETRIES: 2, PREFECT_LOGGING_TO_API_ENABLED: False}):
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
    return _Apart.latest is not None and _Apart.latest.poll() is not None


def leave_at_once(code: int) -> NoReturn:
    """End the process without what is left to do at its exit, and the server with it."""
    if _Apart.latest is not None and _Apart.latest.poll() is None:
        _Apart.latest.terminate()
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


def _start() -> None:
    """Have Prefect start its server, through a Popen that sets the child apart; Prefect ends it when we exit."""
    try:
        from prefect.server.api import server as module

        server = module.SubprocessASGIServer()
        if server.running:
            return
        with _set_apart(module):
            server.start()
        apart = isinstance(server.server_process, _Apart)
    except (ImportError, AttributeError, KeyError):
        logger.info("Prefect has another embedded server than the one known here", exc_info=True)
        apart = False
    if not apart:
        logger.warning("Prefect starts its embedded server by itself: Ctrl-C reaches that too, and may take minutes")


@contextmanager
def _set_apart(module: ModuleType) -> Iterator[None]:
    """Let a module's subprocess.Popen be ours; everybody else's stays what it is."""
    names = vars(module)
    before = names["subprocess"]
    names["subprocess"] = SimpleNamespace(**vars(before) | {"Popen": _Apart})
    _Apart.starting = True
    try:
        yield
    finally:
        _Apart.starting = False
        names["subprocess"] = before


class _Apart(subprocess.Popen[Any]):
    """A child in a session of its own that gets SIGTERM when we are killed, where the system can do that."""

    latest: ClassVar["_Apart | None"] = None
    starting: ClassVar[bool] = False

    def __init__(self, args: Sequence[str], **options: Any) -> None:  # noqa: ANN401 - passed on to Popen, which has some twenty
        # The parent-death signal is tied to the starting thread: only the main thread lasts as long as the process.
        lasting = threading.current_thread() is threading.main_thread()
        if sys.platform == "linux" and lasting:
            # Not in preexec_fn, which may deadlock where there are threads.
            args = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *args]
        super().__init__(args, **options | {"start_new_session": True})
        type(self).latest = self

    def poll(self) -> int | None:
        """As Popen does; at the start, where Prefect would wait on for a server that has ended, that is an error."""
        code = super().poll()
        if self.starting and code not in (None, _PORT_TAKEN):
            raise VouchError(f"Prefect's embedded server ended with code {code} instead of starting")
        return code


DEFAULTS: Final = {
    # No package reports home.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FIFTYONE_DO_NOT_TRACK": "true",
    # The first embedded start migrates its database, which takes longer than Prefect's 20 seconds, and many times as
    # long on a busy machine. A server that ends instead of starting is seen at once, see embedded_server.py.
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


class Ended(NamedTuple):
    """How a signal ends a command."""

    code: int
    """Exit code, 128 + the signal's number."""
    word: str
    """What to call it."""


def signal_behind(error: BaseException) -> Ended | None:
    """The signal that an error came of, as Prefect's errors do when one interrupts its calls; None: of none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return Ended(INTERRUPTED, "interrupted")
        # Prefect's, by name: importing it takes seconds.
        if type(cause).__name__ == "TerminationSignal":
            return Ended(TERMINATED, "terminated")
        if isinstance(cause, SystemExit) and cause.code in (HUNG_UP, TERMINATED):
            return Ended(cause.code, "terminated")
        cause = cause.__context__
    return None
