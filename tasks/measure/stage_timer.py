"""Times the steps of `process_shard` from outside, by wrapping what it calls."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class StageTimer:
    """Seconds by name, exclusive: time in a wrapped call is taken from the wrapped call around it."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.in_threads: defaultdict[str, float] = defaultdict(float)
        """Sums over threads that run beside the steps."""
        self.forward: defaultdict[str, float] = defaultdict(float)
        """By step, seconds in the outermost calls of what `wrap_forward` wraps; part of `seconds`."""
        self._inside = False
        self._open: list[str] = []
        self._since = 0.0
        self._lock = Lock()

    def wrap(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """Count what a function takes under a name."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._in(name):
                return function(*args, **kwargs)

        return timed

    def wrap_generator(self, name: str, function: Callable[P, Iterator[R]]) -> Callable[P, Iterator[R]]:
        """Count the waiting for each item of a generator."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
            items = function(*args, **kwargs)
            try:
                while True:
                    with self._in(name):
                        item = next(items, self)
                    if item is self:
                        return
                    yield cast("R", item)
            finally:
                items.close()  # type: ignore[attr-defined] # acquire is a generator

        return timed

    def wrap_in_threads(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """Sum what a function takes in whatever thread."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self.in_threads[name] += time.perf_counter() - started

        return timed

    def wrap_forward(self, function: Callable[P, R], synchronize: Callable[[], object]) -> Callable[P, R]:
        """Count the outermost calls of a function in `forward`, for the step that they are in.

        Args:
            function: Runs a model.
            synchronize: Waits until the device has done what it was given.
        """

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._inside or not self._open:
                return function(*args, **kwargs)
            self._inside = True
            synchronize()
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                synchronize()
                self.forward[self._open[-1]] += time.perf_counter() - began

        return timed

    @contextmanager
    def _in(self, name: str) -> Iterator[None]:
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
