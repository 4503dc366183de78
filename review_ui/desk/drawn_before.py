"""What lies in the question of an item: its label, or what the reviewer drew for an answer that he took back."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from schemas.queue import Box, Item, VerdictRow
from schemas.tables import BOX

_TOUCHING: Final = 0.9
"""Of a pixel that a box need not cover to touch it."""


class DrawnBefore(NamedTuple):
    """A label to draw."""

    label_id: str | None
    """None of one that the reviewer drew himself."""
    class_name: str
    box: Box
    rle: bytes | None
    """COCO RLE counts of the image's size."""


def drawn_before(item: Item, said: Sequence[VerdictRow]) -> Iterator[DrawnBefore]:
    """Tell what to draw: boxes, masks and missed objects as they were answered.

    The class of the label in question and whether it is an object are as they are asked: most often one key said
    otherwise, and it is that key which is taken back.

    Args:
        item: What is asked.
        said: The answer that was taken back, the row about the item first; empty without one.
    """
    if item.label_id is not None and item.box is not None and item.class_name is not None:
        about = said[0] if said else {}
        box, rle = _box(about), about.get("rle_counts")
        if rle is not None and box is None:
            # The App lets the box follow a mask that is painted; that is no answer about the box.
            box = _around(rle, item.box, item.width, item.height)
        elif box is None:
            box, rle = item.box, item.rle
        yield DrawnBefore(item.label_id, item.class_name, box, rle)
    for row in said[1:]:
        drawn = _box(row)
        if drawn is not None:
            yield DrawnBefore(None, row["class_name"], drawn, row.get("rle_counts"))


def _box(row: VerdictRow) -> Box | None:
    x0, y0, x1, y1 = (row.get(side) for side in BOX)
    return None if x0 is None or y0 is None or x1 is None or y1 is None else (x0, y0, x1, y1)


def _around(rle: bytes, box: Box, width: int, height: int) -> Box:
    """The box, grown as little as lets it touch every pixel of a mask."""
    from pycocotools import mask as mask_utils

    left, top, across, down = mask_utils.toBbox({"size": [height, width], "counts": rle}).tolist()
    x0, y0, x1, y1 = box
    return (
        min(x0, left + _TOUCHING),
        min(y0, top + _TOUCHING),
        max(x1, left + across - _TOUCHING),
        max(y1, top + down - _TOUCHING),
    )
