"""The process of one reviewer: FiftyOne's server behind the guard, on a socket that it is given."""

import logging
import os
import socket
import sys
import threading
from typing import TextIO

from starlette.types import ASGIApp

from vouch_labels.review_ui.guard.app import Guard
from vouch_labels.review_ui.server.process import ServerSettings
from vouch_labels.review_ui.session.session import Desk
from vouch_labels.tasks.store.open import open_store

logger = logging.getLogger("vouch_labels.review_ui.server")

READY = "ready\n"


def main() -> None:
    """Serve until SIGTERM, or until whoever started this process is gone."""
    told = _take_stdout()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    # It takes seconds, in which whoever started this process has other things to do.
    import fiftyone.server.app  # noqa: F401 - for what comes

    for package in ("fiftyone", "eta"):
        # Our log has what they say already.
        logging.getLogger(package).handlers.clear()
    line = sys.stdin.readline()
    if not line:
        return
    settings = ServerSettings.model_validate_json(line)
    stop = threading.Event()
    # Our starter's end closes the pipe, whatever ended it.
    threading.Thread(target=_await_end, args=(stop,), name="starter", daemon=True).start()
    _serve(settings, stop, told)


def _take_stdout() -> TextIO:
    """Keep standard output for our own word: what other packages print goes where errors go."""
    told = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return told


def _await_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()
    logger.info("whoever started this server has gone; it ends")


def _serve(settings: ServerSettings, stop: threading.Event, told: TextIO) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            told.write(READY)
            told.close()

        async def on_tick(self, counter: int) -> bool:
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
    )
    Server(config).run(sockets=[socket.socket(fileno=settings.socket)])


def application(settings: ServerSettings) -> ASGIApp:
    """Import FiftyOne, which takes seconds, and put the guard around it.

    Args:
        settings: Whose desk, and where the images lie.

    Raises:
        VouchError: The database is away, or there is no such queue.
    """
    import fiftyone.server.app

    from vouch_labels.review_ui.plugin.operators import desk

    return Guard(fiftyone.server.app.app, settings.guard, DeskSeat(desk()), open_store(settings.source))


class DeskSeat:
    """A reviewer's place at a queue; safe for use from many threads."""

    def __init__(self, desk: Desk) -> None:
        """Take the desk that this process shows."""
        self._desk = desk

    def dataset_id(self) -> str:
        """Hex id of the desk's dataset."""
        return self._desk.dataset_id

    def item_of(self, sample_id: str) -> str | None:
        """The item that a sample of the desk shows; None when the desk has no such sample."""
        return self._desk.item_of_sample(sample_id)

    def holds(self, item: str) -> bool:
        """Whether the reviewer holds the lease of an item now."""
        return self._desk.queue.holds(self._desk.reviewer, item)

    def has_image(self, key: str) -> bool:
        """Whether a key is an image of the queue."""
        return self._desk.queue.has_image(key)

    def log(self, method: str, path: str, body: bytes, status: int) -> None:
        """Keep a change that was asked for, and what became of it."""
        self._desk.queue.log(self._desk.reviewer, method, path, body, status)


if __name__ == "__main__":
    main()
