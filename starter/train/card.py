"""Keeps the measured parts of a model card current; the words around them are written by hand."""

from collections.abc import Mapping
from pathlib import Path


def update_card(card: Path, part: str, facts: Mapping[str, str]) -> None:
    """Replace the table between `<!-- PART -->` and `<!-- /PART -->` in a card; append it where it is missing.

    Args:
        card: Markdown file; made if missing.
        part: Name of the part, "training" or "figures".
        facts: Rows of the table.
    """
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {card.stem}\n"
    opening, closing = f"<!-- {part} -->", f"<!-- /{part} -->"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    block = f"{opening}\n| | |\n|---|---|\n{rows}\n{closing}"
    before, found, rest = text.partition(opening)
    after = rest.partition(closing)[2] if found else "\n"
    # A card without the part gets it at its end.
    text = before + block + after if found else f"{text.rstrip()}\n\n{block}\n"
    card.write_text(text, encoding="utf-8")
