"""Starts, watches and ends the server process of one reviewer; its environment and settings."""

import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import Field

from vouch_labels import review_ui
from vouch_labels.review_ui.guard.settings import GuardSettings
from vouch_labels.schemas.campaign import Source, Strict, Workspace
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.store.private import FOLDER_MODE, private

logger = logging.getLogger(__name__)

READY: Final = b"ready"
LOG_VARIABLE: Final = "VOUCH_REVIEW_LOG"
START_TIMEOUT_S: Final = 600.0
"""Only for one that hangs: that one has ended is seen at once. FiftyOne's import takes 3 s, and 13 s the first time
after it was installed; a busy machine takes many times as long."""
STOP_TIMEOUT_S: Final = 60.0
"""It ends in two seconds, where the machine is not busy."""
KILL_TIMEOUT_S: Final = 5.0
"""For one that gives no sign: it will not hear that it is to end either."""
SILENT_S: Final = 180.0
"""A server whose event loop gives no sign for so long hangs. It gives one a second, where the machine is not busy."""

PLUGINS: Final = Path(review_ui.__file__).parent / "plugin"
"""Where FiftyOne finds our plugin, and no other."""

_LEFT_OUT: Final = ("FIFTYONE_", "VOUCH_REVIEW_", "VOUCH_MONGODB_URI")
"""The user's own FiftyOne has its own settings; tokens and passwords are not passed on."""
_KEPT: Final = ("FIFTYONE_DATABASE_NAME",)


class ServerSettings(Strict):
    """One line of JSON on standard input, since arguments and environments can be read by others."""

    guard: GuardSettings = Field(description="Whose session, and who may log in.")
    source: Source = Field(description="Where the images lie; a folder by its absolute path.")
    workspace: Workspace | None = Field(None, description="Where what tar files have inside is kept.")
    socket: int = Field(description="Descriptor of the socket to answer on; it is bound already.")


class ReviewerServer:
    """One reviewer's server; it is started again when it dies, on the same socket and for the same cookies."""

    def __init__(
        self, settings: ServerSettings, bound: socket.socket, environment: Mapping[str, str], log: Path
    ) -> None:
        """Take its settings, its socket, its environment, and the file that it logs to."""
        self._settings, self._bound, self._environment = settings, bound, environment
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._sign_at = 0.0

    @property
    def reviewer(self) -> str:
        """Whose it is."""
        return self._settings.guard.reviewer

    @property
    def port(self) -> int:
        """The port that it answers on."""
        return self._settings.guard.port

    @property
    def pid(self) -> int | None:
        """Number of its process; None before the first start."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, so that it imports FiftyOne, which takes seconds; it waits for its settings."""
        self.log.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with open(self.log, "ab", opener=private) as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vouch_labels.review_ui.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**self._environment, LOG_VARIABLE: str(self.log)},
                pass_fds=[self._bound.fileno()],
                # So that Ctrl-C in the terminal reaches only us, and we end it in order.
                start_new_session=True,
                umask=0o077,
            )

    def tell(self, certified: str, commands: tuple[tuple[str, str], ...]) -> None:
        """Give it what its last page says, before its settings are sent."""
        guard = self._settings.guard.model_copy(update={"certified": certified, "commands": commands})
        self._settings = self._settings.model_copy(update={"guard": guard})

    def send_settings(self) -> None:
        """Send it its settings; `wait` returns when it answers."""
        # A process that ended at once is found out when it is waited for.
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until it answers; a VouchError says that it ended, or takes too long."""
        assert self._process is not None
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if select.select([number], [], [], 0.2)[0]:
                if os.read(number, 64).startswith(READY):
                    self._sign_at = time.monotonic()
                    return
                self._process.wait()
                raise VouchError(f"the review server of {self.reviewer} ended at its start{self._last_words()}")
        raise VouchError(
            f"the review server of {self.reviewer} did not start within {START_TIMEOUT_S:.0f} s; is the machine "
            f"overloaded? See {self.log}"
        )

    def has_died(self) -> bool:
        """Whether its process has ended."""
        return self._process is not None and self._process.poll() is not None

    def has_hung(self) -> bool:
        """Whether it runs, and its event loop has given no sign for SILENT_S: it answers nobody."""
        if self._process is None or self._process.poll() is not None:
            return False
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        if select.select([number], [], [], 0)[0] and os.read(number, 1 << 16):
            self._sign_at = time.monotonic()
        return time.monotonic() - self._sign_at > SILENT_S

    def terminate(self) -> None:
        """Ask it to end; `stop` waits for that."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it, and wait until it has."""
        if self._process is None:
            return
        patience_s = KILL_TIMEOUT_S if self.has_hung() else STOP_TIMEOUT_S
        self.terminate()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            logger.warning("the review server of %r did not end in time and is killed", self.reviewer)
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in reversed(lines[-50:]):
                if ": " in line and not line.startswith(" "):
                    return f": {line.partition('Error: ')[2] or line} (log: {self.log})"
        return f"; see {self.log}"


_SETTINGS: Final = {
    "FIFTYONE_DO_NOT_TRACK": "true",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    # It is a server, and starts no services of its own.
    "FIFTYONE_SERVER": "1",
    "FIFTYONE_DISABLE_SERVICES": "1",
    # Our database is a single server, which has no change streams; FiftyOne would poll it all the time.
    "FIFTYONE_EXECUTION_STORE_NOTIFICATION_SERVICE_DISABLED": "true",
    # Nothing is answered to pages of other sites.
    "FIFTYONE_ALLOWED_ORIGINS": "",
    # Plugins do not change while it runs; without this every request of an operator loads them all again.
    "FIFTYONE_PLUGINS_CACHE_ENABLED": "true",
    "PYTHONUNBUFFERED": "1",
}


def server_environment(outer: Mapping[str, str], uri: str, queue: str, reviewer: str, batch: int) -> dict[str, str]:
    """Make the environment of a reviewer's server out of our own; FiftyOne itself knows no users."""
    kept = {name: value for name, value in outer.items() if name in _KEPT or not name.startswith(_LEFT_OUT)}
    return {
        **kept,
        **_SETTINGS,
        "FIFTYONE_DATABASE_URI": uri,
        "FIFTYONE_PLUGINS_DIR": str(PLUGINS),
        "VOUCH_REVIEW_QUEUE": queue,
        "VOUCH_REVIEW_REVIEWER": reviewer,
        "VOUCH_REVIEW_BATCH": str(batch),
    }
