"""Tells the guard of a desk in FiftyOne's database and of its queue."""

import logging
import os
from typing import Any, Final

from bson import ObjectId
from pymongo import MongoClient

from review_ui.guard.settings import GuardSettings
from review_ui.queue.queue import Queue

_DATABASE: Final = "fiftyone"

logger = logging.getLogger(__name__)


class MongoSeat:
    """A reviewer's place at a queue; safe for use from many threads."""

    def __init__(self, uri: str, settings: GuardSettings, queue: Queue) -> None:
        """Take the database's address, whose desk it is, and the queue."""
        client = MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=20_000)
        self._database = client[os.environ.get("FIFTYONE_DATABASE_NAME", _DATABASE)]
        self._settings, self._queue = settings, queue

    def dataset_id(self) -> str | None:
        """Hex id of the desk's dataset; None while there is none."""
        found = self._desk()
        return None if found is None else str(found["_id"])

    def item_of(self, sample_id: str) -> str | None:
        """The item that a sample of the desk shows; None when the desk has no such sample."""
        found = self._desk()
        if found is None:
            return None
        sample = self._database[found["sample_collection_name"]].find_one({"_id": ObjectId(sample_id)}, {"item": True})
        return sample.get("item") if sample else None

    def holds(self, item: str) -> bool:
        """Whether the reviewer holds the lease of an item now."""
        return self._queue.holds(self._settings.reviewer, item)

    def has_image(self, key: str) -> bool:
        """Whether a key is an image of the queue."""
        return self._queue.has_image(key)

    def log(self, method: str, path: str, body: bytes, status: int) -> None:
        """Keep a change that was asked for, and what became of it."""
        self._queue.log(self._settings.reviewer, method, path, body, status)

    def _desk(self) -> dict[str, Any] | None:
        return self._database["datasets"].find_one(
            {"name": self._settings.desk}, {"_id": True, "sample_collection_name": True}
        )
