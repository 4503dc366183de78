"""Reads the document of a sample as the reviewer left it, and says what is wrong with it."""

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from review_ui.desk.instance_mask import Mask
from schemas.errors import UserError
from schemas.queue import Box

Document = Mapping[str, Any]

_LARGEST_MASK: Final = 1 << 28
"""Bytes; an image of more pixels is not labelled."""


class DraftError(UserError):
    """What is on the desk is no answer yet; the reviewer can mend it, and nothing is lost."""


@dataclass(frozen=True)
class Drawn:
    """A label as it is on the desk."""

    id: ObjectId
    class_name: str
    box: Box
    """Within the image."""
    mask: Mask | None
    """Fills the box."""


def read_draft(sample: Document, width: int, height: int, classes: Sequence[str]) -> list[Drawn]:
    """Read the labels of `question` of a sample.

    Args:
        sample: Its document in FiftyOne's database.
        width: Of the image in pixels.
        height: Of the image in pixels.
        classes: Of the campaign.

    Raises:
        DraftError: A label has no class, no box in the image, or a mask that cannot be read.
    """
    question = sample.get("question")
    found = question.get("detections") if isinstance(question, Mapping) else None
    if question is not None and not isinstance(found, list):
        raise DraftError("the labels of this image cannot be read; skip it, and tell who runs the review")
    return [_drawn(label, width, height, classes) for label in found or ()]


def _drawn(label: object, width: int, height: int, classes: Sequence[str]) -> Drawn:
    if not isinstance(label, Mapping) or not isinstance(label.get("_id"), ObjectId):
        raise DraftError("a label of this image cannot be read; delete it and draw it anew, or skip the image")
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
        raise DraftError(f"the box of {name!r} cannot be read; delete it and draw it anew")
    left, top, across, down = sides
    x0, x1 = (min(max(side * width, 0.0), float(width)) for side in (left, left + across))
    y0, y1 = (min(max(side * height, 0.0), float(height)) for side in (top, top + down))
    # As it will be kept: sides that differ by less than float32 can say enclose nothing.
    if not (np.float32(x0) < np.float32(x1) and np.float32(y0) < np.float32(y1)):
        raise DraftError(f"the box of {name!r} is empty or outside of the image; draw it anew, or delete it")
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
