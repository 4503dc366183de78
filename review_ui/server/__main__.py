"""The process of one reviewer: FiftyOne's server behind the guard, on a socket that it is given."""

import logging
import os
import socket
import sys
import threading
from typing import TextIO

from review_ui.server.settings import ServerSettings

READY = "ready\n"

logger = logging.getLogger("review_ui.server")


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

    from review_ui.server.application import application

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


if __name__ == "__main__":
    main()
