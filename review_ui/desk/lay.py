"""Lays items out as FiftyOne samples; no image is opened for it."""

import mimetypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

from review_ui.desk.drawn_before import DrawnBefore, drawn_before
from review_ui.desk.ids import object_id
from review_ui.desk.instance_mask import Mask, mask_in_box
from review_ui.desk.words import question_of
from schemas.queue import Box, Item, VerdictRow

if TYPE_CHECKING:
    import fiftyone as fo


def virtual_path(queue: str, key: str) -> str:
    """The path by which the guard knows an image of a queue; no file lies there."""
    return f"/vouch/{queue}/{key}"


def sample_of(item: Item, queue: str, said: Sequence[VerdictRow] = ()) -> "fo.Sample":
    """Make the sample that shows an item; nothing in it tells what the item is asked for.

    Args:
        item: What is asked.
        queue: Id of its queue.
        said: The reviewer's answer, if it was taken back: what he drew for it is drawn again.

    Returns:
        The sample, in no dataset yet.
    """
    import fiftyone as fo

    asked = [_drawn(one, item) for one in drawn_before(item, said)]
    known = [_detection(other.label_id, other.class_name, other.box, item) for other in item.others]
    return fo.Sample(
        filepath=virtual_path(queue, item.key),
        metadata=fo.ImageMetadata(
            size_bytes=0,
            mime_type=mimetypes.guess_type(item.key)[0] or "image/jpeg",
            width=item.width,
            height=item.height,
            num_channels=3,
        ),
        item=item.id,
        epoch=item.epoch,
        kind=item.kind,
        ask=question_of(item),
        why=item.words,
        question=fo.Detections(detections=asked),
        known=fo.Detections(detections=known),
    )


def _drawn(one: DrawnBefore, item: Item) -> "fo.Detection":
    mask = None if one.rle is None else mask_in_box(one.rle, one.box, item.width, item.height)
    return _detection(one.label_id, one.class_name, one.box, item, mask)


def _detection(label_id: str | None, class_name: str, box: Box, item: Item, mask: Mask | None = None) -> "fo.Detection":
    import fiftyone as fo

    found = fo.Detection(label=class_name, bounding_box=_shares(box, item), mask=mask)
    if label_id is not None:
        found._id = object_id(label_id)
    return found


def _shares(box: Sequence[float], item: Item) -> list[float]:
    """Left, top, width and height of a box as shares of the image, as FiftyOne keeps them."""
    x0, y0, x1, y1 = box
    return [x0 / item.width, y0 / item.height, (x1 - x0) / item.width, (y1 - y0) / item.height]
