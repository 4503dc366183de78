"""A queue that is open: its collections, its settings, and the log of what people do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from review_ui.queue.connect import Database, Document, read_queue
from schemas.errors import UserError

What = Literal["leased", "returned", "expired", "skipped", "submitted", "late", "undone"]
"""What an event tells; late: an answer that came when the item was another's, or answered otherwise."""

_NOW: Final = {"$max": ["$$NOW", {"$add": ["$now", 1]}]}
"""Never earlier than the stamp before: a clock that was put back would let an answer that was taken back count."""


class Stamp(NamedTuple):
    """Number and time of an event."""

    seq: int
    """Ascending within the queue; numbers may be missing, and events of one moment share one."""
    at: datetime
    """By the server's clock; later than any stamp before."""


@dataclass(frozen=True)
class Session:
    """One queue."""

    database: Database
    queue: str
    """Its id."""
    run: str
    classes: tuple[str, ...]
    """Of the campaign, in the order declared."""
    lease_ms: int

    def key_of(self, name: str) -> str:
        """The key of the document of an item or an image."""
        return f"{self.queue}/{name}"

    def record(self, what: What, reviewer: str, details: Document) -> None:
        """Append an event; it is on disk when this returns.

        Raises:
            DuplicateKeyError: It has an _id, and has happened before.
        """
        self.database.events.insert_one(self._events(what, reviewer, [details])[0])

    def record_all(self, what: What, reviewer: str, details: Sequence[Document]) -> None:
        """Append events of one moment; they are on disk when this returns."""
        if details:
            self.database.events.insert_many(self._events(what, reviewer, details))

    def record_once(self, what: What, reviewer: str, key: str, details: Document) -> bool:
        """Append an event of which there can be one of this key; False if there was."""
        try:
            self.record(what, reviewer, {"_id": self._event_key(what, key)} | details)
        except DuplicateKeyError:
            return False
        return True

    def happened(self, what: What, keys: Iterable[str]) -> set[str]:
        """Which of the events that can happen only once have happened."""
        wanted = {self._event_key(what, key): key for key in keys}
        found = self.database.events.find({"_id": {"$in": list(wanted)}}, {"_id": 1})
        return {wanted[event["_id"]] for event in found}

    def happening(self, what: What, key: str) -> Document | None:
        """The event of this key, of which there can be one."""
        return self.database.events.find_one({"_id": self._event_key(what, key)})

    def undone(self, **which: object) -> list[int]:
        """Numbers of the answers that were taken back; `which` are conditions of MongoDB on fields of the events."""
        found = self.database.events.find({"queue": self.queue, "what": "undone", **which}, {"of": 1})
        return [event["of"] for event in found]

    def _event_key(self, what: What, key: str) -> str:
        return f"{self.queue}/{what}/{key}"

    def _events(self, what: What, reviewer: str, details: Sequence[Document]) -> list[Document]:
        stamp = self._stamp()
        fields = {"queue": self.queue, "what": what, "reviewer": reviewer, "seq": stamp.seq, "at": stamp.at}
        return [fields | one for one in details]

    def _stamp(self) -> Stamp:
        found = self.database.queues.find_one_and_update(
            {"_id": self.queue},
            [{"$set": {"seq": {"$add": ["$seq", 1]}, "now": _NOW}}],
            projection={"seq": 1, "now": 1},
            return_document=ReturnDocument.AFTER,
        )
        if found is None:
            raise UserError(f"the review queue {self.queue} is gone from the database; start the review again")
        return Stamp(found["seq"], found["now"])


def open_session(database: Database, queue_id: str) -> Session:
    """Open a queue that was filled.

    Raises:
        UserError: It was not, or by a newer version of Vouch.
    """
    found = read_queue(database, queue_id)
    if found is None:
        raise UserError(f"there is no review queue {queue_id!r} in the database at {database.where}; fill it first")
    return Session(
        database=database,
        queue=queue_id,
        run=found["run"],
        classes=tuple(found["classes"]),
        lease_ms=found["lease_ms"],
    )
