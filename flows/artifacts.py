"""Shows results in Prefect, as the Markdown of artifacts."""

import logging
from collections.abc import Iterable

from prefect.artifacts import create_markdown_artifact

from vouch_labels.schemas.text import Block

logger = logging.getLogger(__name__)

MOST_ROWS = 500
"""Rows of a table; Prefect keeps artifacts in its database."""


def publish(key: str, description: str, title: str, blocks: Iterable[Block]) -> None:
    """Show lines and tables in Prefect, as Markdown; what goes wrong here takes nothing from a result."""
    try:
        create_markdown_artifact(markdown(title, blocks), key=key, description=description)
    except Exception:
        logger.warning("%s could not be shown in Prefect", key, exc_info=True)


def markdown(title: str, blocks: Iterable[Block]) -> str:
    """Lay lines and tables out as Markdown under a title."""
    parts = [f"# {_plain(title)}"]
    for block in blocks:
        if isinstance(block, str):
            parts.append(_plain(block))
            continue
        parts += [f"**{_plain(block.title)}**"] if block.title else []
        cells = list(block.cells())
        lines = [list(block.columns), ["---"] * len(block.columns), *cells[:MOST_ROWS]]
        parts.append("\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines))
        if len(cells) > MOST_ROWS:
            parts.append(f"{len(cells) - MOST_ROWS:,} more rows are not shown.")
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Keys and class names come from outside: they must not break the table or bring markup in."""
    return "".join(f"\\{letter}" if letter in "|`<>[]*_\\" else letter for letter in text)
