"""Writes results/<name>.json and RESULTS.md: a table for people, and the raw figures for machines."""

from datetime import date
from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.harness.run import Measured, describe_machine
from vouch_labels.schemas.campaign import Strict

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
