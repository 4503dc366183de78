"""Slows guessing down."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

TRIES: Final = 10
WINDOW_S: Final = 300.0
MOST_PEERS: Final = 10_000


class Failures:
    """Counts failed logins by peer within a sliding window; used by the event loop's one thread."""

    def __init__(
        self, tries: int = TRIES, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take how many failures a window holds, its length in seconds, and a clock in seconds."""
        self._tries, self._window_s, self._clock = tries, window_s, clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, peer: str) -> int:
        """Seconds until a peer may try again; 0: now."""
        failed = self._failed.get(peer)
        if failed is None:
            return 0
        now = self._clock()
        while failed and failed[0] <= now - self._window_s:
            failed.popleft()
        if not failed:
            del self._failed[peer]
            return 0
        if len(failed) < self._tries:
            return 0
        return max(1, math.ceil(failed[0] + self._window_s - now))

    def add(self, peer: str) -> None:
        """Note a failure."""
        self._failed.setdefault(peer, deque(maxlen=self._tries)).append(self._clock())
        self._failed.move_to_end(peer)
        while len(self._failed) > MOST_PEERS:
            self._failed.popitem(last=False)
