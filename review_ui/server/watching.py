"""Keeps a review alive: starts again the servers and the database that died, and gives up what keeps dying."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from review_ui.server.database_use import DatabaseUse
from review_ui.server.serving import Served
from schemas.errors import VouchError

LOOK_S: Final = 0.25
"""Between two looks at whether all run."""
MOST_RESTARTS: Final = 5
RESTARTS_WITHIN_S: Final = 60.0

Say = Callable[[str], None]

logger = logging.getLogger(__name__)


def keep_alive(servers: Sequence[Served], database: DatabaseUse, say: Say) -> None:
    """Watch the servers and the database for ever, and start again what has died.

    A server that keeps dying ends; the review of the others goes on.

    Args:
        servers: They answer.
        database: Theirs.
        say: Told what happens, a line for people.

    Raises:
        VouchError: None is left that runs, or the database does not start again.
    """
    watched = [_Watched(one) for one in servers]
    while True:
        time.sleep(LOOK_S)
        if database.revive():
            say("the review database had ended; it runs again, and nothing that was submitted is lost")
        for one in [each for each in watched if each.server.has_died()]:
            try:
                one.start_again()
            except VouchError as error:
                one.server.stop()
                watched.remove(one)
                if not watched:
                    raise
                say(f"{error}; the others go on, and what lies on this desk comes free when its lease runs out")
            else:
                say(
                    f"the server of {one.server.reviewer} had ended; it runs again at the same address, reload the page"
                )


class _Watched:
    def __init__(self, served: Served) -> None:
        self.server = served.server
        self._restarts: deque[float] = deque(maxlen=MOST_RESTARTS)

    def start_again(self) -> None:
        now = time.monotonic()
        if len(self._restarts) == MOST_RESTARTS and now - self._restarts[0] < RESTARTS_WITHIN_S:
            raise VouchError(f"the server of {self.server.reviewer} keeps ending; {self.server.log} says why")
        self._restarts.append(now)
        logger.warning("the review server of %r has died (log: %s)", self.server.reviewer, self.server.log)
        self.server.stop()
        self.server.start()
        self.server.tell()
        self.server.wait()
