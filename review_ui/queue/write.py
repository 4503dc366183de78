"""Writes images and new items of a queue in bulk, streamed from the tables of the run."""

from collections.abc import Iterable
from typing import Final

from pymongo import InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError

from review_ui.queue.asked import Task, Wanted
from review_ui.queue.connect import Document
from review_ui.queue.documents import image_document, item_content, item_document
from review_ui.queue.session import Session
from review_ui.queue.signals import Told
from tasks.labels.records import ExportImage
from tasks.reviews.overlay import HumanWord

_AT_ONCE: Final = 500
"""Images in memory: some 3 MB with ten labels each."""
_DUPLICATE: Final = 11000


class Writer:
    """Writes images and, once an image is there, what is asked about it."""

    def __init__(self, session: Session, word: HumanWord, told: Told, wanted: Wanted) -> None:
        """Start with nothing written.

        Args:
            session: The queue.
            word: What people have said; goes before the models' labels.
            told: What the signals say of new questions.
            wanted: How many people are asked a question.
        """
        self._session, self._word, self._told, self._wanted = session, word, told, wanted
        self._images: list[Document] = []
        self._items: list[Document] = []
        self._anew: list[UpdateOne] = []
        self.added = 0
        """Items."""
        self.written = 0
        """Images."""

    def write(self, images: Iterable[ExportImage], tasks: Iterable[Task], stale: Iterable[Task] = ()) -> set[str]:
        """Write images that are new or have changed, and questions about them.

        Args:
            images: As the models labelled them; consumed as it goes.
            tasks: New questions.
            stale: Questions whose items are to show what they would if they were new; what is on a desk stays as it is.

        Returns:
            Keys of all images that came.
        """
        hashes = self._hashes()
        by_key, stale_by_key = _by_key(tasks), _by_key(stale)
        seen = set()
        for image in images:
            seen.add(image.key)
            document = image_document(self._session.queue, next(iter(self._word.over([image]))))
            if hashes.get(image.key) != document["hash"]:
                self._images.append(document)
            for task in by_key.get(image.key, ()):
                self._items.append(
                    item_document(self._session.queue, task, image, self._told, self._wanted(task.item, task.kind))
                )
            for task in stale_by_key.get(image.key, ()):
                free = {"_id": self._session.key_of(task.item), "leases": []}
                self._anew.append(UpdateOne(free, {"$set": item_content(task, image, self._told)}))
            if max(len(self._images), len(self._items), len(self._anew)) >= _AT_ONCE:
                self._flush()
        self._flush()
        return seen

    def _flush(self) -> None:
        # Images first: an item can be taken as soon as it is there.
        database = self._session.database
        if self._images:
            replacements = [ReplaceOne({"_id": image["_id"]}, image, upsert=True) for image in self._images]
            database.images.bulk_write(replacements, ordered=False)
        if self._items:
            self.added += _insert(self._session, self._items)
        if self._anew:
            database.items.bulk_write(self._anew, ordered=False)
        self.written += len(self._images)
        self._images, self._items, self._anew = [], [], []

    def _hashes(self) -> dict[str, str]:
        found = self._session.database.images.find({"queue": self._session.queue}, {"key": 1, "hash": 1})
        return {image["key"]: image["hash"] for image in found}


def _by_key(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.key, []).append(task)
    return found


def _insert(session: Session, items: list[Document]) -> int:
    """Insert items, but those that another one who fills the queue has inserted meanwhile; returns how many."""
    try:
        return session.database.items.bulk_write([InsertOne(item) for item in items], ordered=False).inserted_count
    except BulkWriteError as error:
        if any(one["code"] != _DUPLICATE for one in error.details["writeErrors"]):
            raise
        inserted: int = error.details["nInserted"]
        return inserted
