"""Bounds the memory that decoding images takes, over all threads of the process together: who would pass it waits."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Final

_MEBIBYTE: Final = 1 << 20
_AHEAD: Final = 4
"""Images decoded ahead of their turn take a fourth at most; the rest is kept for the one whose turn it is."""
DEFAULT_MB: Final = 2048
"""The limit of what decodes images outside a run: previews, reports, the review's images."""


class StoppedError(Exception):
    """The consumer has left: what waits for memory need not go on."""


class Memory:
    """A number of bytes that threads share.

    An image whose turn it is gets memory when it fits, or when nothing else is being decoded; decoding ends by itself,
    so no image waits for one that waits for it.
    """

    def __init__(self, limit: int) -> None:
        """Take the limit in bytes."""
        self.limit = limit
        self.changed = threading.Condition()
        self.held = 0
        self.decoding = 0
        """Images that are being decoded now."""

    @property
    def most(self) -> int:
        """Bytes that decoding one image may take: they fit beside all that is decoded ahead."""
        return self.limit - self.limit // _AHEAD

    def room(self) -> "Room":
        """Make room for an image that is read by itself."""
        return Queue(self).room(0)


class Queue:
    """Images that are decoded ahead of one consumer, who takes them in order."""

    def __init__(self, memory: Memory) -> None:
        """Begin: it is the first image's turn."""
        self.memory = memory
        self.turn = 0
        self.stopped = False

    def room(self, place: int) -> "Room":
        """Make room for the image at a place, counted from 0."""
        return Room(self, place)

    def advance(self) -> None:
        """Say that the consumer has the image whose turn it was."""
        with self.memory.changed:
            self.turn += 1
            self.memory.changed.notify_all()

    def stop(self) -> None:
        """Say that the consumer takes no more: those that wait give up."""
        with self.memory.changed:
            self.stopped = True
            self.memory.changed.notify_all()


class Room:
    """The part of the memory that one image holds: its file, what decoding it takes, its pixels."""

    def __init__(self, queue: Queue, place: int) -> None:
        """Hold nothing yet."""
        self._memory, self._queue, self._place = queue.memory, queue, place
        self._held = 0

    @property
    def most(self) -> int:
        """Bytes that decoding may take."""
        return self._memory.most

    def hold(self, size: int) -> None:
        """Hold so many bytes from now on; to hold more may take waiting.

        Raises:
            StoppedError: The consumer has left.
        """
        more = size - self._held
        with self._memory.changed:
            if more > 0:
                self._wait(lambda: self._fits(more))
            self._held = size
            self._change(more)

    def decoding(self, size: int) -> AbstractContextManager[None]:
        """Hold so many bytes more while the block decodes.

        Raises:
            StoppedError: The consumer has left.
        """
        return self._decoding(size, lambda: self._fits(size))

    def alone(self) -> AbstractContextManager[None]:
        """Run the block when it is the image's turn and nothing else is decoded, nor will be meanwhile.

        Raises:
            StoppedError: The consumer has left.
        """
        memory = self._memory
        return self._decoding(memory.limit, lambda: self._is_next() and not memory.decoding)

    @contextmanager
    def _decoding(self, size: int, may: Callable[[], bool]) -> Iterator[None]:
        memory = self._memory
        with memory.changed:
            self._wait(may)
            memory.decoding += 1
            self._change(size)
        try:
            yield
        finally:
            with memory.changed:
                memory.decoding -= 1
                self._change(-size)

    def _is_next(self) -> bool:
        return self._place <= self._queue.turn

    def _fits(self, more: int) -> bool:
        memory = self._memory
        if self._is_next():
            return memory.held + more <= memory.limit or not memory.decoding
        return memory.held + more <= memory.limit // _AHEAD

    def _wait(self, may: Callable[[], bool]) -> None:
        self._memory.changed.wait_for(lambda: self._queue.stopped or may())
        if self._queue.stopped:
            raise StoppedError

    def _change(self, more: int) -> None:
        self._memory.held += more
        self._memory.changed.notify_all()


@cache
def memory_of(megabytes: int) -> Memory:
    """The memory of this process of so many MiB, the same at every call."""
    return Memory(megabytes * _MEBIBYTE)
