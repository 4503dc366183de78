"""Makes items of documents: with the image's other labels as corrected so far, without what would break blindness."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from vouch_labels.review_ui.queue.answers import verdict_table
from vouch_labels.review_ui.queue.database import Document, QueueStore
from vouch_labels.review_ui.queue.state import epoch_of
from vouch_labels.schemas.queue import Item, KnownLabel
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.arrow import first_places
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel, with_shown_names
from vouch_labels.tasks.reviews.overlay import HumanLabel

_REJECTED: Final = "rejected"
REASON: Final = "words"
"""The field of a document that has the reason; queues of earlier versions have it under this name."""

_WAITING: Final[dict[str, Any]] = {"wanted": {"$gt": 1}, "state": {"$in": ["open", "leased"]}}
"""Items that may have an answer, and are to have another one."""


def items_of(queue: QueueStore, found: Sequence[Document], reviewer: str) -> list[Item]:
    """Make items of documents that the reviewer holds, in their order."""
    images = _images(queue, sorted({item["key"] for item in found}), reviewer)
    return [_item(queue, item, images[item["key"]], epoch_of(item, reviewer)) for item in found]


def _images(queue: QueueStore, keys: Sequence[str], reviewer: str) -> dict[str, ExportImage]:
    """Read images of the queue, with what people have answered about their labels since it was filled.

    A second opinion is to be the reviewer's own: answers of others to questions that they are asked too are left out.
    """
    documents = queue.database.images.find({"_id": {"$in": [queue.key_of(key) for key in keys]}})
    images = [_export_image(document) for document in documents]
    corrections = HumanLabel.of(_verdicts(queue, keys, blinded_items(queue, keys, reviewer)), queue.classes)
    return {image.key: with_shown_names(image, queue.names) for image in corrections.over(images)}


def known_labels(image: ExportImage) -> list[KnownLabel]:
    """The current labels of an image: people's corrections go before the models' labels; rejected ones are left out."""
    labels = {label.label_id: label for label in image.labels if label.reviewed != _REJECTED}
    return [
        KnownLabel(label_id=label.label_id, class_name=label.class_name, box=label.xyxy, rle=label.rle_counts)
        for label in labels.values()
    ]


def _item(queue: QueueStore, found: Document, image: ExportImage, epoch: int) -> Item:
    return Item(
        id=found["item"],
        place=found["place"],
        kind=found["kind"],
        key=found["key"],
        width=image.width,
        height=image.height,
        class_name=queue.shown_name(found["class_name"]),
        label_id=found["label_id"],
        box=None if found["box"] is None else tuple(found["box"]),
        rle=found["rle"],
        reason=found[REASON],
        seconds=found["seconds"],
        epoch=epoch,
        others=tuple(
            label for label in known_labels(image) if label.label_id not in (found["label_id"], found["hide"])
        ),
    )


def _export_image(document: Document) -> ExportImage:
    labels = [
        # Accepted, so that an object drawn over it that is there already counts as known.
        ExportLabel(one["label_id"], one["class_name"], tuple(one["box"]), one["rle"], 0, 0.0, None, "accept", None)
        for one in document["labels"]
    ]
    return ExportImage(document["key"], document["width"], document["height"], labels)


def _verdicts(queue: QueueStore, keys: Sequence[str], blinded: frozenset[str]) -> pa.Table:
    """What was answered in this queue about images and their labels, in time."""
    of_images = {"key": {"$in": list(keys)}}
    undone = set(queue.undone(**of_images))
    wanted = {"queue": queue.id, "what": "submitted", **of_images}
    found = queue.database.events.find(wanted).sort("seq")
    return verdict_table(one for one in found if one["seq"] not in undone and one["item"] not in blinded)


def blinded_items(queue: QueueStore, keys: Sequence[str], reviewer: str) -> frozenset[str]:
    """Find the items of images whose answers a reviewer is not to see, on whatever question about the image."""
    wanted = {"queue": queue.id, "key": {"$in": list(keys)}, **_WAITING, "answered_by": {"$ne": reviewer}}
    return frozenset(item["item"] for item in queue.database.items.find(wanted, {"item": 1}))


def visible_verdicts(queue: QueueStore, verdicts: pa.Table) -> pa.Table:
    """Leave out verdicts of the workspace that not everybody is to see; the queue's own log has them for the others.

    These are the answers to questions that wait for another person, with what was drawn beside them. What came from
    elsewhere stays, also that of the same reviewers: no log of this queue has it.
    """
    waiting = {"queue": queue.id, **_WAITING, "answered_by.0": {"$exists": True}}
    items = {item["item"] for item in queue.database.items.find(waiting, {"item": 1})}
    answers = {"queue": queue.id, "what": "submitted", "twice": True, "seq": {"$nin": queue.undone()}}
    waiting_answers = verdict_table(one for one in queue.database.events.find(answers) if one["item"] in items)
    # As whole rows, by which a pull recognizes what the workspace has.
    first = first_places(pa.concat_tables([waiting_answers, verdicts]), VERDICTS.names)
    return verdicts.filter(pa.array(first[waiting_answers.num_rows :] >= waiting_answers.num_rows))
