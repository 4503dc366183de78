"""Renders results as the Markdown of Prefect artifacts."""

from collections.abc import Iterable

from vouch_labels.schemas.text import Block

MOST_ROWS = 50
"""Rows of a table."""


def markdown(title: str, blocks: Iterable[Block]) -> str:
    """Lay lines and tables out as Markdown under a title."""
    parts = [f"# {_plain(title)}"]
    for block in blocks:
        if isinstance(block, str):
            parts.append(_plain(block))
            continue
        parts += [f"**{_plain(block.title)}**"] if block.title else []
        lines = [list(block.columns), ["---"] * len(block.columns), *list(block.cells())[:MOST_ROWS]]
        parts.append("\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Keys and class names come from outside: they must not break the table or bring markup in."""
    return "".join(f"\\{letter}" if letter in "|`<>[]*_\\" else letter for letter in text)
