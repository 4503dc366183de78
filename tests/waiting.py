"""How tests wait: for something to happen, never for a time to pass."""

import time
from collections.abc import Callable
from typing import Final

HANG_S: Final = 1800
"""Seconds after which whatever a test waits for is taken to hang.

No wait of a test takes more than a minute on a quiet machine, so one that is thirty times as slow passes as well. A
whole test has twice as long, see pyproject.toml.
"""


def until(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + HANG_S
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
