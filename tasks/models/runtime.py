"""Defines the device, number format and speed-ups that models run with, and how threads share the device.

Measures how much device memory a batch takes, holds CUDA streams for models that are independent of each other, and
gives one thread the device alone while it measures.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import Condition, get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from numpy.typing import NDArray

from vouch_labels.schemas.campaign import SWITCHES, ModelsConfig, known_switch
from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS: Final = 8

COMPILE_AFTER: Final = 64
"""Calls of one shape that run as they are before `compile: auto` compiles it: only long runs get there."""

SPARE: Final = 0.8
"""Share of the free memory that batches may take: the allocator splits what it has, and others use the device too."""
PIPELINE_STAGES: Final = 3
"""Models that may have a batch on the device at the same time: detector, segmenter, scorer."""

_GPU_NODES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Without one of these a process on Linux has no GPU: NVIDIA's, AMD's, those of Windows below WSL."""

WAIT_SECONDS: Final = 0.5
"""Seconds after which a wait is started again: an exception that is set in a waiting thread comes through then."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What the models may do to be fast; the default is all of it, without compiling."""

    switches: frozenset[str] = frozenset(SWITCHES)
    """Names of schemas.campaign.SWITCHES that are on; none is the packages' own forward."""
    compile: bool = False
    """Whether torch.compile is used."""
    compile_after: int = 0
    """Calls of one shape that run as they are before it is compiled."""

    def has(self, switch: str) -> bool:
        """Whether a switch is on; ValueError where there is no such switch."""
        return known_switch(switch) in self.switches


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how to compute."""

    device: str
    """cpu, cuda:N or mps."""
    precision: str
    """fp32 or bf16."""
    engine: Engine = field(default_factory=Engine)
    """Which speed-ups are on."""


def choose_runtime(config: ModelsConfig) -> Runtime:
    """Settle `auto`, and refuse what this machine does not have.

    Sets, for the whole process and for good: torch's threads, where the campaign says how many; and, with fp32 on CUDA,
    that neither products of matrices nor convolutions are computed in TF32, whose 10 bits torch allows convolutions by
    default. That cannot be set for one call: torch has one setting for all threads, and models run in several.

    Raises:
        UserError: The device is unknown or absent, or cannot compute in the precision asked for.
    """
    import torch

    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    device = _device(config.device)
    precision = _precision(config.precision, device)
    if precision == "fp32" and device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return Runtime(device, precision, choose_engine(config, device))


def light_runtime(config: ModelsConfig) -> Runtime:
    """As `choose_runtime`, but torch is imported only where there may be a GPU, and nothing is set for the process."""
    certain = config.device == "cpu" or (config.device == "auto" and not any(map(os.path.exists, _GPU_NODES)))
    if not certain:
        return choose_runtime(config)
    return Runtime("cpu", _precision(config.precision, "cpu"), choose_engine(config, "cpu"))


def _precision(asked: str, device: str) -> str:
    if not device.startswith("cuda"):
        return "fp32" if asked == "auto" else asked
    import torch

    # torch answers for the current device. Older devices emulate bf16, slower than fp32.
    with torch.cuda.device(device):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "bf16" and not has_bf16:
        raise UserError("models.precision: this GPU does not compute in bf16; use fp32 or auto")
    return ("bf16" if has_bf16 else "fp32") if asked == "auto" else asked


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if asked == "cpu":
        return asked
    if asked == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("models.device: this machine has no mps device; use cpu or auto")
        return asked
    kind, _, number = asked.partition(":")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise UserError(f"models.device: {asked!r} is no device; use auto, cpu, cuda, cuda:N or mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        has = f"{count} CUDA device(s)" if count else "no CUDA device"
        raise UserError(f"models.device: {asked} was asked for and this machine has {has}; use cpu or auto")
    return f"cuda:{index}"


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function to each item, in threads: for Pillow and large copies, which release the interpreter's lock."""
    threads = min(MOST_THREADS, os.cpu_count() or 1, len(items))
    if threads < 2:
        return [function(item) for item in items]
    # Not kept: a process that is forked would inherit threads that do not run.
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        return list(pool.map(function, items))


def to_device(array: NDArray[Any], device: str) -> "Tensor":
    """Bring an array to a device, without waiting for what a GPU has yet to do; on a CPU the memory is shared."""
    import torch

    # CUDA has taken ordinary memory off when the call returns; other devices do not guarantee that.
    return torch.from_numpy(array).to(device, non_blocking=device.startswith("cuda"))


REFERENCE: Final = Engine(frozenset())
"""The packages' own forward."""


def choose_engine(config: ModelsConfig, device: str) -> Engine:
    """Settle which speed-ups the campaign asks for; `compile: auto` compiles on CUDA alone."""
    on_cuda = device.startswith("cuda")
    compiles = config.engine == "fast" and (config.compile == "on" or (config.compile == "auto" and on_cuda))
    on = frozenset(SWITCHES).difference(config.switched_off) if config.engine == "fast" else frozenset[str]()
    return Engine(on, compiles, COMPILE_AFTER if compiles and config.compile == "auto" else 0)


def numbers_of(precision: str, engine: Engine, switches: Sequence[str]) -> str:
    """Part of a backend's fingerprint: the precision, and the switches among these that change numbers.

    In fp32 no switch changes more than the last bits; in bf16 another order of the same sums does.
    """
    return "+".join([precision, *(name for name in switches if precision == "bf16" and engine.has(name))])


class Gauge(Protocol):
    """Measures one batch after the other, while nothing else computes on the device."""

    def start(self) -> None:
        """A batch begins."""

    def stop(self) -> tuple[int, int]:
        """Bytes that the batch took at most, and bytes that the next one may take."""


class CudaGauge:
    """The gauge of a CUDA device, by torch's allocator, whose figures are of the whole device."""

    def __init__(self, device: str) -> None:
        """Take the device's name, cuda:N."""
        self._device = device
        self._before = 0

    def start(self) -> None:
        """Forget the peak of what came before."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def stop(self) -> tuple[int, int]:
        """Bytes that the batch took at most, and a model's equal share of the bytes that batches may take."""
        import torch

        taken = torch.cuda.max_memory_allocated(self._device) - self._before
        free, _ = torch.cuda.mem_get_info(self._device)
        # What the allocator holds and does not use is free to the next batch.
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return taken, int((free + idle) * SPARE / PIPELINE_STAGES)


def gauge_of(device: str) -> Gauge | None:
    """The gauge of a device; None where memory cannot be read, or is the host's."""
    return CudaGauge(device) if device.startswith("cuda") else None


def on_own_stream(function: Callable[[Item], None], device: str, stage: int) -> Callable[[Item], None]:
    """Let a function queue its kernels and copies apart from those of other pipeline stages.

    Without it, a stage that waits for its own results would wait for all that the others have queued. The function
    leaves no tensor on the device that another stage reads. The same stage has the same stream always, for the
    allocator keeps memory by stream.
    """

    def run(item: Item) -> None:
        import torch

        with torch.cuda.device(device), torch.cuda.stream(_stream(device, stage)):
            function(item)

    return run


@cache
def _stream(device: str, stage: int) -> "torch.cuda.Stream":
    import torch

    del stage
    # What the models hold was put there on the stream of the thread that loaded them.
    torch.cuda.synchronize(device)
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch has no types here
    return stream


class Visit:
    """One stay on the device."""

    def __init__(self) -> None:
        """Begin alone."""
        self.alone = True
        """Whether no other thread has computed in the meantime."""


class SharedLock:
    """Any number of threads together, or one alone; who wants to be alone goes before those who come later.

    Stays may be nested. A thread that stays together with others and then wants to be alone gives up its place until it
    has been: what it holds of the device stays held, while it computes nothing.
    """

    def __init__(self) -> None:
        """Start without any thread."""
        self._changed = Condition()
        self._visits: dict[int, Visit] = {}
        """Thread -> its stay together with others."""
        self._owner: int | None = None
        """The thread that is alone."""
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[Visit]:
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
    def exclusive(self) -> Iterator[None]:
        """Stay while no other thread does."""
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
                self._changed.wait(WAIT_SECONDS)
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
                    self._changed.wait(WAIT_SECONDS)
                self._owner = thread
            finally:
                self._waiting -= 1
                self._changed.notify_all()


@cache
def device_lock(device: str) -> SharedLock:
    """The lock of a device in this process."""
    del device
    return SharedLock()
