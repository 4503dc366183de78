"""Reads a sample as the reviewer left it, and turns its differences from the item into verdicts or an error."""

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from vouch_labels.review_ui.session.samples import Mask, mask_in_box, object_id, rle_in_image
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.queue import Box, Item
from vouch_labels.schemas.reviews import MOST_RLE_BYTES
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.boxes_masks import paired_box_iou

Choice = Literal["as_shown", "wrong_class", "bad_box", "not_an_object"]
"""What the reviewer's key chooses: the label as it is on the screen now, or a verdict that needs no edit."""

TOLERANCE: Final = 0.05
"""Pixels by which a box may differ from the item's and still be the same: the App keeps sides as shares."""
_SAME_OBJECT_IOU: Final = 0.9
"""A box follows its mask when that is painted: up to here the box counts as good, and the mask alone as corrected."""

Row = dict[str, Any]

Document = Mapping[str, Any]

_LARGEST_MASK: Final = 1 << 28
"""Bytes; an image of more pixels is not labelled."""


def read_back(
    sample: Document, item: Item, classes: Sequence[str], choice: Choice = "as_shown", class_name: str | None = None
) -> list[Row]:
    """Make the rows of the reviewer's answer from the sample's document in FiftyOne's database.

    With wrong_class, `class_name` is the right one; None: it is none of the campaign's, or changed on the screen.

    Returns:
        Columns of schemas.reviews.VERDICTS that are not the queue's own: first the row about the item, then one of
        `missed` for each new box.

    Raises:
        DraftError: It is no answer yet, with a line for the reviewer; nothing has changed.
    """
    # The item's own class may have left the campaign while the item was leased; answers to it count.
    known = classes if item.class_name is None else (*classes, item.class_name)
    drawn = read_draft(sample, item.width, item.height, known)
    own = None if item.label_id is None else object_id(item.label_id)
    missed = [
        _row(item, "missed", class_name=one.class_name, box=one.box, mask=None if one.mask is None else _rle(one, item))
        for one in drawn
        if one.id != own
    ]
    if item.label_id is None:
        if choice != "as_shown":
            raise DraftError("this asks about the whole image: draw what no box shows and submit it, or skip it")
        return [_row(item, "checked", class_name=item.class_name), *missed]
    if choice == "not_an_object":
        return [_row(item, "not_an_object"), *missed]
    kept = next((one for one in drawn if one.id == own), None)
    if kept is None:
        if choice != "as_shown":
            raise DraftError(
                "the label is deleted, which means that it is not an object; undo that, or submit it as it is"
            )
        return [_row(item, "not_an_object"), *missed]
    return [_about_label(kept, item, choice, class_name), *missed]


def rows_if_unchanged(sample: Document, item: Item, classes: Sequence[str]) -> list[Row] | None:
    """Make the rows of a label as read_back does; None if the label was changed, or something was drawn.

    Unchanged, its crop shows it as it is.
    """
    try:
        rows = read_back(sample, item, classes)
    except DraftError:
        return None
    about, *missed = rows
    return rows if about["verdict"] == "correct" and about["rle_counts"] is None and not missed else None


@dataclass(frozen=True)
class Drawn:
    """A label as it is drawn now."""

    id: ObjectId
    class_name: str
    box: Box
    """Within the image."""
    mask: Mask | None
    """Fills the box."""


def _about_label(kept: Drawn, item: Item, choice: Choice, class_name: str | None) -> Row:
    box = _box_of(item)
    mask = _new_mask(kept, item)
    moved = max(abs(new - old) for new, old in zip(kept.box, box, strict=True)) > TOLERANCE
    if mask is not None and moved and _iou(kept.box, box) >= _SAME_OBJECT_IOU:
        moved = False
    right = kept.class_name if kept.class_name != item.class_name else None
    if choice == "wrong_class" or right is not None:
        right = class_name if class_name is not None else right
        if right == item.class_name:
            raise DraftError(f"the label is {right!r} already; choose another class, or submit it as it is")
        return _row(
            item, "wrong_class", class_name=right, box=kept.box if moved else None, mask=mask if right else None
        )
    if choice == "bad_box" and not moved:
        # A mask goes with a box: without one to it, the label waits for somebody who draws it.
        return _row(item, "bad_box", box=kept.box if mask else None, mask=mask)
    if moved:
        return _row(item, "bad_box", box=kept.box, mask=mask)
    if kept.mask is None and _shown_mask(item) is not None:
        raise DraftError("the mask was removed and the box is where it was: move the box, or undo that (Ctrl+Z)")
    return _row(item, "correct", mask=mask)


def _new_mask(kept: Drawn, item: Item) -> bytes | None:
    """The mask as it should be, if it was painted on."""
    if kept.mask is None:
        return None
    shown = _shown_mask(item)
    if shown is not None and kept.mask.shape == shown.shape and bool((kept.mask == shown).all()):
        return None
    return _rle(kept, item)


def _shown_mask(item: Item) -> Mask | None:
    return None if item.rle is None else mask_in_box(item.rle, _box_of(item), item.width, item.height)


def _rle(one: Drawn, item: Item) -> bytes:
    assert one.mask is not None
    found = rle_in_image(one.mask, one.box, item.width, item.height)
    if found is None:
        raise DraftError(f"the mask of {one.class_name!r} is empty; paint it, or remove the mask")
    if len(found) > MOST_RLE_BYTES:
        raise DraftError(
            f"the mask of {one.class_name!r} has too rough an edge to be kept; smooth it, or remove the mask"
        )
    return found


def _box_of(item: Item) -> Box:
    assert item.box is not None
    return item.box


def _iou(first: Box, second: Box) -> float:
    return float(paired_box_iou(np.array([first], np.float32), np.array([second], np.float32))[0])


def _row(
    item: Item, verdict: str, *, class_name: str | None = None, box: Box | None = None, mask: bytes | None = None
) -> Row:
    return {
        "label_id": None if verdict == "missed" else item.label_id,
        "key": item.key,
        "verdict": verdict,
        "class_name": class_name,
        **dict(zip(BOX, box or (None,) * 4, strict=True)),
        "rle_counts": mask,
    }


class DraftError(UserError):
    """What is drawn is no answer yet; the reviewer can fix it, and nothing is lost."""


def read_draft(sample: Document, width: int, height: int, classes: Sequence[str]) -> list[Drawn]:
    """Read the labels of `question` of a sample.

    Raises:
        DraftError: A label has no class, no box in the image, or a mask that cannot be read.
    """
    question = sample.get("question")
    found = question.get("detections") if isinstance(question, Mapping) else None
    if question is not None and not isinstance(found, list):
        raise DraftError("the labels of this image cannot be read; skip it, and report it to who runs the review")
    return [_drawn(label, width, height, classes) for label in found or ()]


def _drawn(label: object, width: int, height: int, classes: Sequence[str]) -> Drawn:
    if not isinstance(label, Mapping) or not isinstance(label.get("_id"), ObjectId):
        raise DraftError("a label of this image cannot be read; delete it and draw it again, or skip the image")
    name = label.get("label")
    if not isinstance(name, str) or not name:
        raise DraftError("a box has no class; click it, choose one on the right, and submit again")
    if name not in classes:
        raise DraftError(f"{name!r} is no class of this campaign; click the box and choose one of the list")
    box = _box(label.get("bounding_box"), name, width, height)
    return Drawn(label["_id"], name, box, _mask(label.get("mask"), name))


def _box(sides: object, name: str, width: int, height: int) -> Box:
    """Pixels from the sides of FiftyOne: left, top, width and height as shares of the image."""
    if not isinstance(sides, list) or len(sides) != 4 or not all(_is_number(side) for side in sides):
        raise DraftError(f"the box of {name!r} cannot be read; delete it and draw it again")
    left, top, across, down = sides
    x0, x1 = (min(max(side * width, 0.0), float(width)) for side in (left, left + across))
    y0, y1 = (min(max(side * height, 0.0), float(height)) for side in (top, top + down))
    # As it will be kept: sides that differ by less than float32 can represent enclose nothing.
    if not (np.float32(x0) < np.float32(x1) and np.float32(y0) < np.float32(y1)):
        raise DraftError(f"the box of {name!r} is empty or outside of the image; draw it again, or delete it")
    return x0, y0, x1, y1


def _mask(kept: object, name: str) -> Mask | None:
    if kept is None:
        return None
    array = _array(kept) if isinstance(kept, bytes) else None
    if array is None or array.ndim != 2 or not array.size:
        raise DraftError(f"the mask of {name!r} cannot be read; remove the mask, or skip the image")
    mask: Mask = array != 0
    return mask


def _array(kept: bytes) -> NDArray[Any] | None:
    """Unpack an array as FiftyOne packs it: NumPy's own format, compressed; None if it is none, or is too large."""
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(kept, _LARGEST_MASK)
        if unpacking.unconsumed_tail:
            return None
        found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (zlib.error, ValueError, EOFError):
        return None
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
