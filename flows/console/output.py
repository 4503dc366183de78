"""Prints for machines, one JSON object or rows; for people, lines and tables of figures."""

import json
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from flows.console.streams import Terminal, printable


def print_json(terminal: Terminal, value: object) -> None:
    """Write a value that JSON can say to standard output, as one line; escaped where its encoding cannot say it."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(terminal.out.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    terminal.out.write(f"{text}\n")
    terminal.out.flush()


def print_rows(terminal: Terminal, rows: Iterable[Sequence[str]]) -> None:
    """Write rows to standard output as they come, fields between tabs, without control characters."""
    for row in rows:
        terminal.out.write("\t".join(printable(" ".join(field.split("\n"))) for field in row) + "\n")
    terminal.out.flush()


def say(console: Console, words: str) -> None:
    """Print a line as it is: no markup, no colours, and left to the terminal to wrap."""
    console.print(printable(words), highlight=False, markup=False, soft_wrap=True)


def table_of(first: str, *others: str) -> Table:
    """An empty table: a column of names, which may be long, and columns of figures."""
    table = Table()
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table
