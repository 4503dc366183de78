"""The process of one reviewer: FiftyOne's server behind the guard, on a socket that it is given.

Connections that send no whole head of a request in time are closed, and few may be waited for.
"""

import asyncio
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from io import TextIOWrapper
from typing import Final, TextIO

from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from vouch_labels.review_ui.guard.app import Guard
from vouch_labels.review_ui.server.process import LOG_VARIABLE, ServerSettings
from vouch_labels.tasks.store.private import PrivateLog
from vouch_labels.tasks.store.source import open_source

HEAD_S: Final = 10.0
"""From a connection, or the first byte of another request on it, to the end of the request's head."""
MOST_WAITING: Final = 100
"""Connections whose head has not come; above that the one that has had most time is closed."""
logger = logging.getLogger("vouch_labels.review_ui.server")

READY = "ready\n"
SIGN = b"."
"""Written once a second by the event loop: who watches this process sees that it hangs when none comes."""
LARGEST_LOG = 5 << 20
_TICKS = 10
"""Of uvicorn in a second."""


def protocol(head_s: float = HEAD_S, most: int = MOST_WAITING) -> type[H11Protocol]:
    """Make uvicorn's protocol with these limits; they are shared by all connections of a server."""
    waiting: dict[H11Protocol, asyncio.TimerHandle] = {}

    class Limited(H11Protocol):
        """uvicorn itself waits for the head of a request for as long as the connection is open."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            else:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self in waiting or self.transport.is_closing():
                return
            if len(waiting) >= most:
                first = next(iter(waiting))
                waiting.pop(first).cancel()
                first.transport.abort()
            waiting[self] = asyncio.get_running_loop().call_later(head_s, self.transport.abort)

        def _stop_waiting(self) -> None:
            if timer := waiting.pop(self, None):
                timer.cancel()

    return Limited


class _Log(PrivateLog):
    """The file that standard error goes to as well, also after it has been rotated."""

    def _open(self) -> TextIOWrapper:
        found = super()._open()
        os.dup2(found.fileno(), 2)
        return found


def main() -> None:
    """Serve until SIGTERM, or until the parent process is gone."""
    output = _take_stdout()
    log = os.environ.get(LOG_VARIABLE)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
        handlers=[_Log(log, maxBytes=LARGEST_LOG, backupCount=1, encoding="utf-8")] if log else None,
    )
    # It takes seconds, in which the parent process has other things to do.
    import fiftyone.server.app  # noqa: F401 - for what comes

    for package in ("fiftyone", "eta"):
        # Our log has their messages already.
        logging.getLogger(package).handlers.clear()
    line = sys.stdin.readline()
    if not line:
        return
    settings = ServerSettings.model_validate_json(line)
    stop = threading.Event()
    # Our starter's end closes the pipe, whatever ended it.
    threading.Thread(target=_await_end, args=(stop,), name="starter", daemon=True).start()
    _serve(settings, stop, output)


def _take_stdout() -> TextIO:
    """Keep standard output for our own line: what other packages print goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return output


def _await_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()
    logger.info("whoever started this server has gone; it ends")


def _serve(settings: ServerSettings, stop: threading.Event, output: TextIO) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            output.write(READY)
            output.flush()

        async def on_tick(self, counter: int) -> bool:
            if counter % _TICKS == 0:
                with suppress(BrokenPipeError, BlockingIOError):
                    os.write(output.fileno(), SIGN)
            return await super().on_tick(counter) or stop.is_set()

    config = uvicorn.Config(
        application(settings),
        # Addresses may carry a token.
        access_log=False,
        log_config=None,
        server_header=False,
        # The guard itself decides whose headers it believes.
        proxy_headers=False,
        ws="none",
        lifespan="on",
        # Browsers listen to events for as long as they are open.
        timeout_graceful_shutdown=2,
        http=protocol(),
    )
    Server(config).run(sockets=[socket.socket(fileno=settings.socket)])


def application(settings: ServerSettings) -> ASGIApp:
    """Import FiftyOne, which takes seconds, and put the guard around it."""
    import fiftyone.server.app

    from vouch_labels.review_ui.plugin.operators import review_session

    return Guard(
        fiftyone.server.app.app, settings.guard, review_session(), open_source(settings.source, settings.workspace)
    )


if __name__ == "__main__":
    main()
