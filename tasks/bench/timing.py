"""Measures time by stage, GPU utilisation and peak memory; repeats a measurement until nothing is compiled in it.

A few images are repeated as many, for machines that finish a few before all their parts are at work.
"""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from vouch_labels.schemas.campaign import Campaign, Source
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.plan.plan import list_source
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.source import open_source

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

P = ParamSpec("P")
R = TypeVar("R")

_COPYING: Final = ("Memcpy", "Memset")

MOST: Final = 8


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

        `synchronize` waits until the device has done what it was given.
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


def gpu_busy(work: Callable[[], object]) -> float:
    """Share of the time of some work in which at least one kernel ran, by torch's profiler.

    The work leaves nothing queued on the GPU.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return covered(kernels(profiler.events() or ())) / 1e6 / seconds


def kernels(events: Iterable["FunctionEvent"]) -> list[tuple[float, float]]:
    """Begin and end of each kernel of a profile, in microseconds; copies, which leave the GPU free, are no kernels."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not event.is_user_annotation and not event.name.startswith(_COPYING)
    ]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (begin, end): what several streams do at the same time counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def settled(work: Callable[[], R], graphs: Callable[[], int] | None = None) -> R:
    """Do some work again as long as it makes torch compile, which a long run does but once; the last result counts.

    It is done at most MOST times. `graphs` counts what has been compiled, by default as `compiled_graphs`.
    """
    count = graphs or compiled_graphs
    for _ in range(MOST - 1):
        before = count()
        result = work()
        if count() == before:
            return result
    return work()


def compiled_graphs() -> int:
    """Graphs that torch.compile has made in this process."""
    utils: Any = sys.modules.get("torch._dynamo.utils")
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])


def repeated(
    campaign: Campaign, refs: Sequence[ImageRef], count: int, folder: Path
) -> tuple[Campaign, Sequence[ImageRef]]:
    """Give a campaign whose source has the images again and again, `count` of them, as files in a fresh folder.

    The campaign and its images stay as they are where there are enough, or where they lie in no folder.
    """
    store = open_source(campaign.source)
    files = [store.local_path(ref.key) for ref in refs]
    if len(refs) >= count or None in files:
        return campaign, refs
    for number, file in zip(range(count), cycle(filter(None, files)), strict=False):
        # No two of one round are neighbours of their copies, as in a listing of many images.
        copy = folder / f"{number:06d}{file.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(as_another_file(file.read_bytes(), number))
    limits = campaign.source.model_dump(include={"max_image_mb", "max_pixels"})
    source = Source(uri=str(folder), include=("**",), **limits)
    many = campaign.model_copy(update={"source": source})
    return many, list(list_source(source, open_store(source)))


def as_another_file(data: bytes, number: int) -> bytes:
    """Give an image file another content and the same pixels: what was labelled under another name is not looked at.

    A free box of the ISO base media file format follows it (ISO/IEC 14496-12, 8.1.2), which HEIC, AVIF and JPEG 2000
    allow, and which the readers of other formats pass over, since those say where they end.
    """
    return data + (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")


def peak_bytes(process: int | None = None) -> int:
    """Peak resident memory in bytes of a process that still runs (None: this one), files mapped into it included.

    Linux counts it for each program image of its own (VmHWM in /proc/PID/status). The figure of getrusage and wait4
    is not used there: it starts from what the parent held when it started the process. For another process it is 0
    where the system does not report it.
    """
    status = Path(f"/proc/{process or 'self'}/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    if process is not None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
