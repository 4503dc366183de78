"""Defines the queue's documents of items and images, and writes them in bulk, streamed from the tables of the run."""

import hashlib
import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from pymongo import InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError

from vouch_labels.review_ui.queue.database import Document, QueueStore
from vouch_labels.review_ui.queue.items import REASON, known_labels
from vouch_labels.review_ui.queue.reasons import QuestionDetails, Task, Wanted
from vouch_labels.schemas.queue import Box
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.reviews.overlay import HumanLabel

_AT_ONCE: Final = 500
"""Images in memory: some 3 MB with ten labels each."""
_DUPLICATE: Final = 11000


def image_document(queue: str, image: ExportImage) -> Document:
    """Make the document of an image, with its labels as people left them."""
    labels = [label.model_dump() for label in known_labels(image)]
    content = {"width": image.width, "height": image.height, "labels": labels}
    return {
        "_id": f"{queue}/{image.key}",
        "queue": queue,
        "key": image.key,
        **content,
        # Shows whether anything has changed without reading the labels.
        "hash": hashlib.sha256(repr(content).encode()).hexdigest()[:32],
    }


def item_document(queue: str, task: Task, image: ExportImage, details: QuestionDetails, wanted: int) -> Document:
    """Make the document of a new item; the image has its labels as the models made them."""
    return {
        "_id": f"{queue}/{task.item}",
        "queue": queue,
        **item_content(task, image, details),
        "state": "open",
        "asked": True,
        "wanted": wanted,
        "answered_by": [],
        "skipped_by": [],
        "leases": [],
        "epoch": 0,
    }


def item_content(task: Task, image: ExportImage, details: QuestionDetails) -> Document:
    """Make what an item shows: all but what people did with it."""
    shown_from = details.sources.get(task.item, task.label_id)
    return {
        **{name: value for name, value in task._asdict().items() if name != "plan"},
        "box": None if task.box is None else list(task.box),
        "width": image.width,
        "height": image.height,
        "rle": _mask(task, image, shown_from),
        # The label in question is not among the others, nor is the one that a honeypot was made from.
        "hide": shown_from,
        REASON: details.reasons.get(task.item, ""),
        "inputs": details.inputs,
    }


def _mask(task: Task, image: ExportImage, label_id: str | None) -> bytes | None:
    """The mask of the label, or of what a honeypot was made from, cut as its box is cut."""
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


class Writer:
    """Writes images and, once an image is there, what is asked about it."""

    def __init__(self, queue: QueueStore, corrections: HumanLabel, details: QuestionDetails, wanted: Wanted) -> None:
        """Start with nothing written; corrections of people go before the models' labels."""
        self._queue, self._corrections, self._details, self._wanted = queue, corrections, details, wanted
        self._images: list[Document] = []
        self._items: list[Document] = []
        self._updates: list[UpdateOne] = []
        self.added = 0
        """Items."""
        self.written = 0
        """Images."""

    def write(self, images: Iterable[ExportImage], tasks: Iterable[Task], stale: Iterable[Task] = ()) -> set[str]:
        """Write images that are new or have changed, and questions about them; returns the keys of all that came.

        Images come as the models labelled them. Items of stale questions then show what they would if they were new,
        but for those that are leased.
        """
        found = self._queue.database.images.find({"queue": self._queue.id}, {"key": 1, "hash": 1})
        hashes = {image["key"]: image["hash"] for image in found}
        by_key, stale_by_key = _by_key(tasks), _by_key(stale)
        seen = set()
        for image in images:
            seen.add(image.key)
            document = image_document(self._queue.id, next(iter(self._corrections.over([image]))))
            if hashes.get(image.key) != document["hash"]:
                self._images.append(document)
            for task in by_key.get(image.key, ()):
                self._items.append(
                    item_document(self._queue.id, task, image, self._details, self._wanted(task.item, task.purpose))
                )
            for task in stale_by_key.get(image.key, ()):
                free = {"_id": self._queue.key_of(task.item), "leases": []}
                self._updates.append(UpdateOne(free, {"$set": item_content(task, image, self._details)}))
            if max(len(self._images), len(self._items), len(self._updates)) >= _AT_ONCE:
                self._flush()
        self._flush()
        return seen

    def _flush(self) -> None:
        # Images first: an item can be taken as soon as it is there.
        database = self._queue.database
        if self._images:
            replacements = [ReplaceOne({"_id": image["_id"]}, image, upsert=True) for image in self._images]
            database.images.bulk_write(replacements, ordered=False)
        if self._items:
            self.added += _insert(self._queue, self._items)
        if self._updates:
            database.items.bulk_write(self._updates, ordered=False)
        self.written += len(self._images)
        self._images, self._items, self._updates = [], [], []


def _by_key(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.key, []).append(task)
    return found


def _insert(queue: QueueStore, items: list[Document]) -> int:
    """Insert items, but those that another one who fills the queue has inserted meanwhile; returns how many."""
    try:
        return queue.database.items.bulk_write([InsertOne(item) for item in items], ordered=False).inserted_count
    except BulkWriteError as error:
        if any(one["code"] != _DUPLICATE for one in error.details["writeErrors"]):
            raise
        inserted: int = error.details["nInserted"]
        return inserted
