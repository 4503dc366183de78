"""Writes results/<name>.json and RESULTS.md, which holds the last result of every benchmark."""

from datetime import date
from pathlib import Path

from pydantic import Field

from benchmarks.harness.child import Measured
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.table import Table, markdown_table
from benchmarks.harness.words import seconds
from schemas.campaign import Strict

HEAD = """# Results

Written by `make bench`; `python -m benchmarks --help` says how to run some of them alone. Every benchmark ran in a
process of its own, one after the other, with nothing else to do on the machine unless its notes say so. The raw figures
are in results/.
"""


class Result(Strict):
    """One benchmark's result, as results/<name>.json holds it."""

    name: str = Field(description="Name of the benchmark.")
    machine: str = Field(description="Where it ran, in words.")
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
    """Write the result, and RESULTS.md anew.

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
