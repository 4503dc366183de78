"""Runs a function in a fresh process with its time and peak memory, and writes tables of results.

results/<name>.json has the raw figures for machines, RESULTS.md a table for people. The description of the machine
names neither it nor its owner.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, validate_call
from pydantic_core import from_json, to_json
from rich.console import Console
from rich.table import Table as RichTable

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.bench.timing import peak_bytes

P = ParamSpec("P")
R = TypeVar("R")

ROOT: Final = Path(__file__).parents[1]
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
        VouchError: The process failed; ends with the last lines that it printed.
    """
    if args:
        raise TypeError("arguments travel by name")
    name = f"{function.__module__}:{function.__qualname__}"
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        request, answer, log = (Path(folder) / part for part in ("request.json", "answer.json", "log.txt"))
        request.write_bytes(to_json(kwargs))
        command = [sys.executable, "-m", "benchmarks.harness", name, str(request), str(answer)]
        with log.open("wb") as file:
            done = subprocess.run(command, cwd=ROOT, env=_environment(), stdout=file, stderr=file, check=False)  # noqa: S603 - our own module
        if done.returncode or not answer.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            raise VouchError(f"{name} ended with exit status {done.returncode}; its last lines:\n" + "\n".join(lines))
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


def peak_bytes_of_children() -> int:
    """Sum of the peaks of all processes that this one has started and that still run."""
    import psutil

    return sum(peak_bytes(child.pid) for child in psutil.Process().children(recursive=True))


def describe_machine() -> str:
    """Cores, kind of CPU, memory, system, and the versions that matter; GPUs stand in the tables that use them."""
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
    widest = next((name for flag, name in kinds.items() if flag in flags), None)
    return f"{name} with {widest}" if widest else name


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


HEAD = """# Results

Written by `make bench`; `python -m benchmarks --help` says how to run some of them alone. Every benchmark ran in a
process of its own, one after the other, with nothing else to do on the machine unless its notes say so. The raw figures
are in results/.
"""


def seconds(value: float) -> str:
    """12.3 s, 45.6 ms."""
    if abs(value) < 1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.1f} s" if abs(value) < 100 else f"{value:.0f} s"


class Table(Strict):
    """One table; every row has a cell for every column."""

    title: str = Field(description="What was measured, in one line.")
    columns: list[str] = Field(min_length=1, description="Headings; the first column names the rows.")
    rows: list[list[str]] = Field(description="Cells, as people read them.")
    notes: list[str] = Field(description="What is counted as what, a sentence or two each.")
    figures: dict[str, float] = Field(description="The raw figures, with the unit at the end of their names.")
    device: str = Field("CPU", description="What the models ran on.")


class Result(Strict):
    """One benchmark's result, as results/<name>.json holds it."""

    name: str = Field(description="Name of the benchmark.")
    machine: str = Field(description="Where it ran.")
    measured_on: date = Field(description="When.")
    seconds: float = Field(description="Wall-clock time of the whole benchmark.")
    table: Table


def make_result(name: str, measured: Measured[Table]) -> Result:
    """Add place and time to what a benchmark has found."""
    return Result(
        name=name,
        machine=describe_machine(),
        measured_on=date.today(),
        seconds=round(measured.seconds, 1),
        table=measured.value,
    )


def write_result(folder: Path, result: Result, order: list[str]) -> None:
    """Write the result, and RESULTS.md again.

    Args:
        folder: Gets RESULTS.md and the folder results.
        result: What was measured last.
        order: Names of all benchmarks, in the order in which RESULTS.md has them.
    """
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{result.name}.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    files = (results / f"{name}.json" for name in order)
    known = [Result.model_validate_json(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    (folder / "RESULTS.md").write_text("\n".join([HEAD, *map(_section, known)]), encoding="utf-8")


def _section(result: Result) -> str:
    table = result.table
    where = f"{result.measured_on}, {result.machine}; models on {table.device}. Took {seconds(result.seconds)}."
    return f"## {result.name}: {table.title}\n\n{markdown_table(table)}\n{where}\n"


def print_table(console: Console, table: Table) -> None:
    """Draw a table on the terminal, its notes below it."""
    drawn = RichTable(title=table.title, title_justify="left")
    for place, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if place else "left")
    for row in table.rows:
        drawn.add_row(*row)
    console.print(drawn)
    for note in table.notes:
        console.print(f"- {note}", markup=False, highlight=False)
    console.print()


def markdown_table(table: Table) -> str:
    """Write a table and its notes as Markdown, without the title."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in [table.columns, rule, *table.rows]]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([*lines, "", *notes]) + "\n"


def mebibytes(value: float) -> str:
    """Bytes as MiB."""
    return f"{value / (1 << 20):,.0f} MiB"


def share(value: float) -> str:
    """A fraction as a percentage."""
    return f"{value * 100:.1f} %"


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except VouchError as error:
        sys.exit(str(error))
