"""Shows items as samples of a FiftyOne dataset: fields, colours, masks, question; no image is opened for it.

Masks are converted between the image, where Vouch keeps them, and the box, where FiftyOne does. FiftyOne wants label
ids of its own kind, and a label must be recognised by it.
"""

import hashlib
import math
import mimetypes
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from vouch_labels.schemas.queue import Box, Item, VerdictRow
from vouch_labels.schemas.tables import BOX
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.boxes_masks import rle_of_crop
from vouch_labels.tasks.reviews.verdicts import mask_trouble

if TYPE_CHECKING:
    import fiftyone as fo

QUESTION: Final = "question"
"""The label asked about and every new one; the only field that can be edited."""
KNOWN: Final = "known"
"""The other labels of the image, to be seen."""
_TEXTS: Final = ("item", "kind", "ask")
_FORMER: Final = ("why", "epoch")
"""Fields of earlier versions: what the models say, and how often somebody had the item; both lead the answer."""
_QUESTION_COLOUR: Final = "#ff9500"
_KNOWN_COLOUR: Final = "#8a93a3"
_MASK_OPACITY: Final = 0.4

Mask = NDArray[np.bool_]

_TOUCHING: Final = 0.9
"""Of a pixel that a box need not cover to touch it."""

_VOWELS = "aeiou"
_VERDICT_TEXTS: Final = {
    "correct": "correct",
    "wrong_class": "another class",
    "bad_box": "the box does not fit",
    "not_an_object": "not an object",
    "checked": "nothing is missing",
}


def open_dataset(name: str, classes: Sequence[str]) -> "fo.Dataset":
    """Open a session's dataset, which outlives this process, or make it; brings its classes up to date."""
    import fiftyone as fo

    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if former := [one for one in _FORMER if dataset.has_field(one)]:
            dataset.delete_sample_fields(former)
    else:
        dataset = fo.Dataset(name, persistent=True)
        for text in _TEXTS:
            dataset.add_sample_field(text, fo.StringField)
        for labels in (QUESTION, KNOWN):
            dataset.add_sample_field(labels, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        # A reviewer's submit finds its sample by it.
        dataset.create_index("item", unique=True)
        _make_style(dataset)
    if dataset.label_schemas.get(QUESTION, {}).get("classes") != list(classes):
        schema = {"type": "detections", "component": "dropdown", "classes": list(classes), "attributes": []}
        dataset.update_label_schema(QUESTION, schema)
        # What is no part of an active schema is not drawn while people annotate.
        dataset.update_label_schema(KNOWN, schema | {"read_only": True})
        dataset.activate_label_schemas([QUESTION, KNOWN])
    return dataset


def _make_style(dataset: "fo.Dataset") -> None:
    import fiftyone as fo

    colours = [
        {"path": QUESTION, "fieldColor": _QUESTION_COLOUR, "colorByAttribute": None},
        {"path": KNOWN, "fieldColor": _KNOWN_COLOUR, "colorByAttribute": None},
    ]
    dataset.app_config.color_scheme = fo.ColorScheme(
        color_by="field", color_pool=[_QUESTION_COLOUR, _KNOWN_COLOUR], opacity=_MASK_OPACITY, fields=colours
    )
    dataset.app_config.sidebar_groups = [
        fo.SidebarGroupDocument(name="question", paths=["ask", QUESTION, KNOWN], expanded=True),
        fo.SidebarGroupDocument(
            name="other",
            paths=["item", "kind", "id", "filepath", "created_at", "last_modified_at"],
            expanded=False,
        ),
        fo.SidebarGroupDocument(name="tags", paths=[], expanded=False),
        fo.SidebarGroupDocument(name="metadata", paths=[], expanded=False),
    ]
    dataset.save()


def sample_of(item: Item, queue: str, answer: Sequence[VerdictRow] = ()) -> "fo.Sample":
    """Make the sample that shows an item, in no dataset yet.

    Nothing in it reveals what the item is asked for, what the models say of it, or whether somebody else has answered.
    What was drawn for an answer that was taken back is drawn again.
    """
    import fiftyone as fo

    asked = [_detection(one, item) for one in drawn_before(item, answer)]
    known = [_detection(DrawnBefore(one.label_id, one.class_name, one.box, None), item) for one in item.others]
    return fo.Sample(
        filepath=f"/vouch/{queue}/{item.key}",  # by which the guard knows the image; there is no such file
        metadata=fo.ImageMetadata(
            size_bytes=0,
            mime_type=mimetypes.guess_type(item.key)[0] or "image/jpeg",
            width=item.width,
            height=item.height,
            num_channels=3,
        ),
        item=item.id,
        kind=item.kind,
        ask=question_of(item),
        question=fo.Detections(detections=asked),
        known=fo.Detections(detections=known),
    )


class DrawnBefore(NamedTuple):
    """A label to draw."""

    label_id: str | None
    """None of one that the reviewer drew."""
    class_name: str
    box: Box
    rle: bytes | None
    """COCO RLE counts of the image's size."""


def _detection(one: DrawnBefore, item: Item) -> "fo.Detection":
    import fiftyone as fo

    mask = None if one.rle is None else mask_in_box(one.rle, one.box, item.width, item.height)
    x0, y0, x1, y1 = one.box
    # Left, top, width and height as shares of the image, as FiftyOne keeps them.
    shares = [x0 / item.width, y0 / item.height, (x1 - x0) / item.width, (y1 - y0) / item.height]
    found = fo.Detection(label=one.class_name, bounding_box=shares, mask=mask)
    if one.label_id is not None:
        found._id = object_id(one.label_id)
    return found


def mask_in_box(rle_counts: bytes, box: Sequence[float], width: int, height: int) -> Mask | None:
    """Cut the mask of an image, compressed COCO RLE counts, to the pixels of an xyxy box, as FiftyOne keeps it.

    Returns:
        (h, w) for the pixels that the box touches; None if none of them is set, or it is no mask of such an image.
    """
    from pycocotools import mask as mask_utils

    if mask_trouble(rle_counts, height, width):
        return None
    left, top, right, bottom = pixels_of(box, width, height)
    whole: NDArray[np.uint8] = mask_utils.decode({"size": [height, width], "counts": rle_counts})
    # By rows: the App reads no other order.
    crop: Mask = np.ascontiguousarray(whole[top:bottom, left:right], np.bool_)
    return crop if crop.any() else None


def rle_in_image(mask: Mask, box: Sequence[float], width: int, height: int) -> bytes | None:
    """Place a mask that fills a box in the image: a pixel is set where the mask is, at its centre.

    The mask (h, w) is stretched over the box, xyxy in pixels and not empty, whatever its size, as FiftyOne shows it.

    Returns:
        Compressed COCO RLE counts of the image's size; None if no pixel is set.
    """
    left, top, right, bottom = pixels_of(box, width, height)
    rows, columns = mask.shape
    if (rows, columns) == (bottom - top, right - left):
        crop = mask
    else:
        x0, y0, x1, y1 = box
        column = np.floor((np.arange(left, right) + 0.5 - x0) / (x1 - x0) * columns).astype(np.int64)
        row = np.floor((np.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * rows).astype(np.int64)
        crop = mask[np.ix_(np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1))]
    return rle_of_crop(crop, left, top, height, width) if crop.any() else None


def pixels_of(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels of an image that a box touches, one at least: left, top, right, bottom, the last two exclusive."""
    left = min(max(math.floor(box[0]), 0), width - 1)
    top = min(max(math.floor(box[1]), 0), height - 1)
    right = min(max(math.ceil(box[2]), left + 1), width)
    bottom = min(max(math.ceil(box[3]), top + 1), height)
    return left, top, right, bottom


def drawn_before(item: Item, answer: Sequence[VerdictRow]) -> Iterator[DrawnBefore]:
    """List what to draw: boxes, masks and missed objects as they were answered.

    The class of the label in question and whether it is an object are as they are asked: most often one key answered
    otherwise, and it is that key which is taken back.
    """
    if item.label_id is not None and item.box is not None and item.class_name is not None:
        about = answer[0] if answer else {}
        box, rle = _box(about), about.get("rle_counts")
        if rle is not None and box is None:
            # The App lets the box follow a mask that is painted; that is no answer about the box.
            box = _around(rle, item.box, item.width, item.height)
        elif box is None:
            box, rle = item.box, item.rle
        yield DrawnBefore(item.label_id, item.class_name, box, rle)
    for row in answer[1:]:
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


def question_of(item: Item) -> str:
    """Format the question of an item in one line."""
    if item.class_name is None:
        return "Find every object that no box shows"
    if item.kind == "label":
        return f"Is this {_article(item.class_name)} {item.class_name}?"
    if item.kind == "possible_miss":
        return f"Is there {_article(item.class_name)} {item.class_name} that no box shows? Draw every one"
    return f"Find every {item.class_name} that no box shows"


def format_answer(answer: Sequence[VerdictRow]) -> str:
    """Format an answer in one line; the row about the item is the first."""
    about, *missed = answer
    text = _VERDICT_TEXTS[about["verdict"]]
    if about["verdict"] == "wrong_class" and about.get("class_name"):
        text = f"{text} ({about['class_name']})"
    if not missed:
        return text
    drawn = plural(len(missed), "missed object")
    return drawn if about["verdict"] == "checked" else f"{text}, and {drawn}"


def _article(name: str) -> str:
    return "an" if name[:1].lower() in _VOWELS else "a"


def object_id(label_id: str) -> ObjectId:
    """The id of a label in FiftyOne: its own where that is one, else one made of it."""
    if ObjectId.is_valid(label_id):
        return ObjectId(label_id)
    return ObjectId(hashlib.sha256(label_id.encode()).hexdigest()[:24])
