"""Lets threads share a device, or have it alone for as long as a measurement takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition, get_ident
from typing import Final

_LOOK_UP: Final = 0.5
"""Seconds after which a wait is taken up anew: an exception that is set in a waiting thread comes through then."""


class Visit:
    """One stay on the device."""

    def __init__(self) -> None:
        """Begin alone."""
        self.alone = True
        """Whether no other thread has computed in the meantime."""


class Turns:
    """Any number of threads together, or one alone; who wants to be alone goes before those who come later.

    Stays may be nested. A thread that stays together with others and then wants to be alone gives up its place until it
    has been: what it holds of the device stays held, while it computes nothing.
    """

    def __init__(self) -> None:
        """Nobody is there."""
        self._changed = Condition()
        self._visits: dict[int, Visit] = {}
        """Thread -> its stay together with others."""
        self._owner: int | None = None
        """The thread that is alone."""
        self._waiting = 0

    @contextmanager
    def together(self) -> Iterator[Visit]:
        """Stay beside others who do the same."""
        thread = get_ident()
        if self._owner == thread:
            yield Visit()
            return
        if thread in self._visits:
            yield self._visits[thread]
            return
        visit = Visit()
        try:
            self._enter(thread, visit)
            yield visit
        finally:
            self._leave(thread)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Stay while nobody else does."""
        thread = get_ident()
        if self._owner == thread:
            yield
            return
        outer = self._visits.get(thread)
        if outer is not None:
            self._leave(thread)
        try:
            self._take(thread)
            yield
        finally:
            with self._changed:
                if self._owner == thread:
                    self._owner = None
                    self._changed.notify_all()
            if outer is not None:
                self._enter(thread, outer)

    def _enter(self, thread: int, visit: Visit) -> None:
        with self._changed:
            while self._owner is not None or self._waiting:
                self._changed.wait(_LOOK_UP)
            self._visits[thread] = visit
            if len(self._visits) > 1:
                for each in self._visits.values():
                    each.alone = False

    def _leave(self, thread: int) -> None:
        with self._changed:
            self._visits.pop(thread, None)
            self._changed.notify_all()

    def _take(self, thread: int) -> None:
        with self._changed:
            self._waiting += 1
            try:
                while self._owner is not None or self._visits:
                    self._changed.wait(_LOOK_UP)
                self._owner = thread
            finally:
                self._waiting -= 1
                self._changed.notify_all()


@cache
def turns_of(device: str) -> Turns:
    """The turns on a device of this process."""
    del device
    return Turns()
