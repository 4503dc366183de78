"""Puts an item's question into words; the same words whatever it is asked for."""

from schemas.queue import Item

_VOWELS = "aeiou"


def question_of(item: Item) -> str:
    """Ask what an item asks, in one line."""
    if item.class_name is None:
        return "Find every object that no box shows"
    if item.kind == "label":
        return f"Is this {_article(item.class_name)} {item.class_name}?"
    if item.kind == "possible_miss":
        return f"Is there {_article(item.class_name)} {item.class_name} that no box shows? Draw every one"
    return f"Find every {item.class_name} that no box shows"


def _article(name: str) -> str:
    return "an" if name[:1].lower() in _VOWELS else "a"
