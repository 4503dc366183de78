"""Runs a function in a fresh process, with its time and peak memory, and describes this machine.

The description names neither the machine nor its owner.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypeVar

from pydantic import BaseModel, TypeAdapter, validate_call
from pydantic_core import from_json, to_json

from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.bench.timing import peak_bytes

P = ParamSpec("P")
R = TypeVar("R")

ROOT: Final = Path(__file__).parents[2]
LAST_LINES: Final = 25


class Measured(BaseModel, Generic[R]):
    """What a function has returned, and what it took."""

    value: R
    seconds: float
    """Wall-clock time of the call alone: starting Python and importing the function's module are not in it."""
    peak_bytes: int
    """Most memory that the whole process has held, Python and imports included, its own children not."""


def in_child(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Measured[R]:
    """Call a function of a module in a Python process of its own.

    Args:
        function: At the top of its module, with annotated arguments and result that pydantic can write as JSON.
        args: None: its arguments have names.
        kwargs: Its arguments.

    Returns:
        What it returned, with time and peak memory.

    Raises:
        VouchError: The process failed; ends with the last lines that it said.
    """
    if args:
        raise TypeError("arguments travel by name")
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        request, answer, log = (Path(folder) / part for part in ("request.json", "answer.json", "log.txt"))
        request.write_bytes(to_json(kwargs))
        command = [sys.executable, "-m", "benchmarks.harness.run", name, str(request), str(answer)]
        with log.open("wb") as file:
            done = subprocess.run(command, cwd=ROOT, env=_environment(), stdout=file, stderr=file, check=False)  # noqa: S603 - our own module
        if done.returncode or not answer.is_file():
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            raise VouchError(f"{name} ended with exit status {done.returncode}; it said last:\n" + "\n".join(said))
        returned = function.__annotations__["return"]
        measured: Measured[R] = TypeAdapter(Measured[returned]).validate_json(answer.read_bytes())  # type: ignore[valid-type] # known at run time
        return measured


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


def _main(name: str, request: str, answer: str) -> None:
    module, attribute = name.split(":")
    function: Callable[..., Any] = validate_call(getattr(import_module(module), attribute))
    arguments = from_json(Path(request).read_bytes())
    started = time.perf_counter()
    value = function(**arguments)
    taken = time.perf_counter() - started
    measured = Measured[Any](value=value, seconds=taken, peak_bytes=peak_bytes())
    Path(answer).write_bytes(to_json(measured))


def describe_machine() -> str:
    """Cores, kind of CPU, memory, system, and the versions that matter; GPUs are told by the tables that use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{cores} cores of {_cpu()}, {memory:.0f} GiB of memory, {platform.system()}; "
        f"Python {platform.python_version()}, torch {version('torch').partition('+')[0]}, Prefect {version('prefect')}"
    )


def _cpu() -> str:
    """The vendor's name of the CPU and the widest arithmetic that models can use on it."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return platform.processor() or platform.machine()
    fields = dict(_pair(line) for line in information.read_text(encoding="utf-8").splitlines() if ":" in line)
    name = fields.get("model name", platform.machine())
    flags = set(fields.get("flags", "").split())
    kinds = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
    widest = next((spoken for flag, spoken in kinds.items() if flag in flags), None)
    return f"{name} with {widest}" if widest else name


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except VouchError as error:
        sys.exit(str(error))
