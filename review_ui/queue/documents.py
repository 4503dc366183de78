"""Documents of items and images, as the queue keeps them."""

import hashlib
import math

import numpy as np

from review_ui.queue.asked import Task
from review_ui.queue.connect import Document
from review_ui.queue.signals import Told
from review_ui.queue.standing import known_labels
from schemas.queue import Box
from tasks.labels.records import ExportImage


def image_document(queue: str, image: ExportImage) -> Document:
    """Lay an image out.

    Args:
        queue: Id of the queue.
        image: With its labels as people left them.
    """
    labels = [label.model_dump() for label in known_labels(image)]
    content = {"width": image.width, "height": image.height, "labels": labels}
    return {
        "_id": f"{queue}/{image.key}",
        "queue": queue,
        "key": image.key,
        **content,
        # Says whether anything has changed without reading the labels.
        "hash": hashlib.sha256(repr(content).encode()).hexdigest()[:32],
    }


def item_document(queue: str, task: Task, image: ExportImage, told: Told, wanted: int) -> Document:
    """Lay an item out that nobody has yet.

    Args:
        queue: Id of the queue.
        task: The question.
        image: Its image, with the labels as the models made them.
        told: What the signals say.
        wanted: How many people are to answer.
    """
    return {
        "_id": f"{queue}/{task.item}",
        "queue": queue,
        **item_content(task, image, told),
        "state": "open",
        "asked": True,
        "wanted": wanted,
        "answered_by": [],
        "skipped_by": [],
        "leases": [],
        "epoch": 0,
    }


def item_content(task: Task, image: ExportImage, told: Told) -> Document:
    """What an item shows: all but what people did with it.

    Args:
        task: The question.
        image: Its image, with the labels as the models made them.
        told: What the signals say.
    """
    source = told.sources.get(task.item)
    shown_from = source.label_id if source else task.label_id
    return {
        **{name: value for name, value in task._asdict().items() if name != "plan"},
        "box": None if task.box is None else list(task.box),
        "width": image.width,
        "height": image.height,
        "rle": _mask(task, image, shown_from),
        # What is asked about stands in the question: not among the others, and not what a plant was made from either.
        "hide": shown_from,
        "words": told.words.get(task.item, ""),
        "inputs": told.inputs,
    }


def _mask(task: Task, image: ExportImage, label_id: str | None) -> bytes | None:
    """The mask of the label, or of what a plant was made from, cut as its box is cut."""
    label = next((label for label in image.labels if label.label_id == label_id), None)
    if label is None or task.box is None or label.rle_counts is None:
        return None
    return label.rle_counts if task.box == label.xyxy else _cut(label.rle_counts, task.box, image.height, image.width)


def _cut(counts: bytes, box: Box, height: int, width: int) -> bytes | None:
    """What a mask has within a box; None if that is nothing."""
    from pycocotools import mask as mask_utils

    x0, y0, x1, y1 = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    whole = mask_utils.decode({"size": [height, width], "counts": counts})
    part = np.zeros_like(whole)
    part[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
    cut: bytes = mask_utils.encode(np.asfortranarray(part))["counts"]
    return cut if part.any() else None
