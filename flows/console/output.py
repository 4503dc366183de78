"""Prints for machines: one JSON object, or rows."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from flows.console.streams import Terminal, printable


def print_json(terminal: Terminal, value: Any) -> None:  # noqa: ANN401 - anything that JSON can say
    """Write the value to standard output as one line of JSON."""
    terminal.out.write(json.dumps(value, ensure_ascii=False) + "\n")
    terminal.out.flush()


def print_rows(terminal: Terminal, rows: Iterable[Sequence[str]]) -> None:
    """Write rows to standard output as they come, fields between tabs, without control characters."""
    for row in rows:
        terminal.out.write("\t".join(printable(" ".join(field.split("\n"))) for field in row) + "\n")
    terminal.out.flush()
