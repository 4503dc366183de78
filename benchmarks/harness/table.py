"""What a benchmark has found: a table for people, with the raw figures for machines."""

from pydantic import Field
from rich.console import Console
from rich.table import Table as RichTable

from schemas.campaign import Strict


class Table(Strict):
    """One table; every row has a cell for every column."""

    title: str = Field(description="What was measured, in one line.")
    columns: list[str] = Field(min_length=1, description="Headings; the first column names the rows.")
    rows: list[list[str]] = Field(description="Cells, as people read them.")
    notes: list[str] = Field(description="What is counted as what, a sentence or two each.")
    figures: dict[str, float] = Field(description="The raw figures, with the unit at the end of their names.")
    device: str = Field("CPU", description="What the models ran on.")


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
