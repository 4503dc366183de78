"""Puts an item's question into words, the same whatever it is asked for; and answers."""

from collections.abc import Sequence
from typing import Final

from schemas.queue import Item, VerdictRow

_VOWELS = "aeiou"
_SAID: Final = {
    "correct": "correct",
    "wrong_class": "another class",
    "bad_box": "the box does not fit",
    "not_an_object": "not an object",
    "checked": "nothing is missing",
}


def question_of(item: Item) -> str:
    """Ask what an item asks, in one line."""
    if item.class_name is None:
        return "Find every object that no box shows"
    if item.kind == "label":
        return f"Is this {_article(item.class_name)} {item.class_name}?"
    if item.kind == "possible_miss":
        return f"Is there {_article(item.class_name)} {item.class_name} that no box shows? Draw every one"
    return f"Find every {item.class_name} that no box shows"


def answer_in_words(said: Sequence[VerdictRow]) -> str:
    """Tell what an answer said.

    Args:
        said: Its rows, the one about the item first.
    """
    about, *missed = said
    words = _SAID[about["verdict"]]
    if about["verdict"] == "wrong_class" and about.get("class_name"):
        words = f"{words} ({about['class_name']})"
    if not missed:
        return words
    drawn = f"{len(missed)} missed object{'' if len(missed) == 1 else 's'}"
    return drawn if about["verdict"] == "checked" else f"{words}, and {drawn}"


def _article(name: str) -> str:
    return "an" if name[:1].lower() in _VOWELS else "a"
