"""Prints one JSON object for machines."""

import json
from typing import Any

from flows.console.streams import Terminal


def print_json(terminal: Terminal, value: Any) -> None:  # noqa: ANN401 - anything that JSON can say
    """Write the value to standard output as one line of JSON."""
    terminal.out.write(json.dumps(value, ensure_ascii=False) + "\n")
    terminal.out.flush()
