"""What the browser is told of an item on the desk."""

from typing import TypedDict

from review_ui.desk.ids import object_id
from review_ui.desk.words import question_of
from schemas.queue import Box, Item, Kind


class Card(TypedDict):
    """An item on the desk; nothing in it tells what it is asked for."""

    sample: str
    """Id of its sample."""
    item: str
    label: str | None
    """Id that the label has on the desk; None for a question about an image."""
    kind: Kind
    key: str
    """Of the image."""
    class_name: str | None
    ask: str
    why: str
    width: int
    height: int
    box: Box | None
    masked: bool
    """Whether the label has a mask, without which its box can be moved."""


def card_of(item: Item, sample_id: str) -> Card:
    """Tell of an item.

    Args:
        item: What is asked.
        sample_id: Of the sample that shows it.
    """
    return {
        "sample": sample_id,
        "item": item.id,
        "label": None if item.label_id is None else str(object_id(item.label_id)),
        "kind": item.kind,
        "key": item.key,
        "class_name": item.class_name,
        "ask": question_of(item),
        "why": item.words,
        "width": item.width,
        "height": item.height,
        "box": item.box,
        "masked": item.rle is not None,
    }
