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
"""Of a server within RESTARTS_WITHIN_S, those that failed included; also how many may fail in a row, at any pace."""
RESTARTS_WITHIN_S: Final = 60.0

Say = Callable[[str], None]

logger = logging.getLogger(__name__)


def keep_alive(servers: Sequence[Served], database: DatabaseUse, say: Say) -> None:
    """Watch the servers and the database for ever, and start again what has died.

    A server that does not start is tried again after a look at the database, which it may have missed. One that keeps
    dying (MOST_RESTARTS) is given up; the review of the others goes on.

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
                said = one.start_again()
            except VouchError as error:
                watched.remove(one)
                if not watched:
                    raise
                said = f"{error}; the others go on, and what lies on this desk comes free when its lease runs out"
            say(said)


class _Watched:
    def __init__(self, served: Served) -> None:
        self.server = served.server
        self._restarts: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._failed = 0
        """Restarts since the last one that succeeded."""

    def start_again(self) -> str:
        """Try to start it again; says what came of that, for people.

        Raises:
            VouchError: It keeps dying, and has ended.
        """
        self.server.stop()
        now = time.monotonic()
        if len(self._restarts) == MOST_RESTARTS and now - self._restarts[0] < RESTARTS_WITHIN_S:
            raise VouchError(f"the server of {self.server.reviewer} keeps ending; {self.server.log} says why")
        self._restarts.append(now)
        logger.warning("the review server of %r has died (log: %s)", self.server.reviewer, self.server.log)
        try:
            self.server.start()
            self.server.tell()
            self.server.wait()
        except VouchError as error:
            # One that takes too long still runs; ended, it is found dead at the next look.
            self.server.stop()
            self._failed += 1
            if self._failed == MOST_RESTARTS:
                raise
            return f"{error}; it is tried again"
        self._failed = 0
        return f"the server of {self.server.reviewer} had ended; it runs again at the same address, reload the page"
