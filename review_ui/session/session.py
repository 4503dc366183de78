"""A reviewer's session: takes items from the queue, shows them in FiftyOne, and submits answers."""

import hashlib
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypedDict

from bson import ObjectId, json_util
from pymongo.collection import Collection

from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.session.read_back import Document, DraftError, Row, Said, read_back
from vouch_labels.review_ui.session.samples import (
    QUESTION,
    answer_in_words,
    object_id,
    open_dataset,
    question_of,
    sample_of,
)
from vouch_labels.schemas.errors import LeaseLostError
from vouch_labels.schemas.queue import Box, Item, Kind, Progress

_GONE_STATUS: Final = 410
"""Status in the log of a draft whose lease is over."""
GONE: Final = "this item is not on your desk any more; go on with the next one"
_LONGEST_S: Final = 3600.0
"""Longer than this nobody looks at one image: the browser was left alone."""

_LONGEST: Final = 32


class Undone(NamedTuple):
    """An answer that was taken back."""

    item: str
    said: str
    """What it said, in words."""


class Card(TypedDict):
    """An item on the desk; nothing in it tells what it is asked for."""

    sample: str
    """Id of its sample."""
    item: str
    label: str | None
    """Id that the label has on the desk; None for a question about an image."""
    kind: Kind
    key: str
    """Of the image."""
    class_name: str | None
    ask: str
    why: str
    width: int
    height: int
    box: Box | None
    masked: bool
    """Whether the label has a mask, without which its box can be moved."""


class Desk:
    """The items that one reviewer holds, each a sample of one FiftyOne dataset; safe for use from many threads.

    Whatever is on it can be thrown away and laid out again: answers lie in the queue, and drafts of leases that are
    over in its log.
    """

    def __init__(self, queue: Queue, queue_id: str, reviewer: str) -> None:
        """Open the reviewer's desk, or make it, and lay out what he holds.

        Args:
            queue: The queue, open.
            queue_id: Its id.
            reviewer: Who works here.
        """
        self.queue, self.reviewer, self.name = queue, reviewer, desk_name(queue_id, reviewer)
        self.queue_id = queue_id
        self.lock = threading.RLock()
        """Held by whoever does several things of which nothing may come in between."""
        self._classes = queue.classes()
        self._dataset = open_dataset(self.name, self._classes)
        self._items: dict[str, Item] = {}
        self.refresh()

    @property
    def dataset_id(self) -> str:
        """Hex id of its dataset."""
        return str(self._dataset._doc.id)

    @property
    def classes(self) -> tuple[str, ...]:
        """The campaign's classes, in its order."""
        return self._classes

    def take(self, count: int, kind: Kind | None = None, class_name: str | None = None) -> list[Card]:
        """Take items until there are `count` of those asked for, and give all that are on the desk."""
        with self.lock:
            self.queue.take(self.reviewer, count, kind=kind, class_name=class_name)
            return self.refresh()

    def refresh(self) -> list[Card]:
        """Make the desk show what the reviewer holds: nothing more, and nothing less."""
        with self.lock:
            held = self.queue.held(self.reviewer)
            self._items = {item.id: item for item in held}
            lying = {one["item"]: one for one in self._samples.find({}, {"item": True, "epoch": True})}
            stale = [name for name, one in lying.items() if name not in self._items]
            self._clear(stale)
            self._lay(item for item in held if item.id not in lying)
            for name, one in lying.items():
                if name in self._items and one.get("epoch") != self._items[name].epoch:
                    self._samples.update_one({"_id": one["_id"]}, {"$set": {"epoch": self._items[name].epoch}})
            return self.cards()

    def cards(self) -> list[Card]:
        """What is on the desk, by place."""
        with self.lock:
            ids = {one["item"]: str(one["_id"]) for one in self._samples.find({}, {"item": True})}
            return [card_of(item, ids[item.id]) for item in self._in_order() if item.id in ids]

    def item_of_sample(self, sample_id: str) -> str | None:
        """The item that a sample shows; None if there is no such sample."""
        found = self._samples.find_one({"_id": ObjectId(sample_id)}, {"item": True})
        return None if found is None else str(found["item"])

    def drafts(self, items: Sequence[str]) -> dict[str, tuple[Item, Document]]:
        """Those of the items that are on the desk, each with its sample's document as it is now."""
        with self.lock:
            if not self._items.keys() >= set(items):
                self.refresh()
            found = {one["item"]: one for one in self._samples.find({"item": {"$in": list(items)}})}
            return {name: (self._items[name], found[name]) for name in items if name in self._items and name in found}

    def submit(
        self, item_id: str, seconds: float | None = None, said: Said = "as_shown", class_name: str | None = None
    ) -> None:
        """Answer an item as it is on the desk, or by a verdict that needs no edit; its sample leaves the desk.

        Args:
            item_id: What is answered.
            seconds: Time spent; None where it is unknown.
            said: See review_ui.session.read_back.
            class_name: The right one, with wrong_class.

        Raises:
            DraftError: It is no answer yet; it stays on the desk.
            LeaseLostError: It is another's by now; it leaves the desk, and the answer is kept in the log.
        """
        with self.lock:
            item, sample = self._at(item_id)
            self.hand_in(item, read_back(sample, item, self._classes, said, class_name), seconds)

    def hand_in(self, item: Item, rows: Sequence[Row], seconds: float | None) -> None:
        """Hand in rows about an item that is on the desk; its sample leaves the desk.

        Args:
            item: What is answered.
            rows: As review_ui.session.read_back makes them.
            seconds: Time spent; None where it is unknown.

        Raises:
            LeaseLostError: As submit does.
        """
        if seconds is not None:
            seconds = min(max(seconds, 0.0), _LONGEST_S)
        with self.lock:
            try:
                self.queue.submit(self.reviewer, item.id, item.epoch, rows, seconds)
            except LeaseLostError:
                self.refresh()
                raise
            self._take_off([item.id])

    def skip(self, item_id: str) -> None:
        """Give an item back undecided; it comes again when nothing else is left."""
        with self.lock:
            item, _ = self._at(item_id)
            self.queue.skip(self.reviewer, item.id, item.epoch)
            self._clear([item.id])

    def undo(self) -> Undone | None:
        """Take the last answer back; None without one.

        Its item is on the desk again with all that was drawn for the answer, see review_ui.session.samples.
        """
        with self.lock:
            item = self.queue.undo(self.reviewer)
            if item is None:
                return None
            said = self.queue.taken_back(self.reviewer, item.id)
            self._clear([item.id])
            self._items[item.id] = item
            self._dataset.add_sample(sample_of(item, self.queue_id, said))
            return Undone(item.id, answer_in_words(said))

    def give_back(self) -> int:
        """Return all items unanswered, and clear the desk; says how many there were."""
        with self.lock:
            returned = self.queue.give_back(self.reviewer)
            self.refresh()
            return returned

    def progress(self) -> Progress:
        """How far the queue is, as this reviewer may see it."""
        return self.queue.progress(self.reviewer)

    @property
    def _samples(self) -> Collection[dict[str, Any]]:
        found: Collection[dict[str, Any]] = self._dataset._sample_collection
        return found

    def _at(self, item_id: str) -> tuple[Item, Document]:
        found = self.drafts([item_id])
        if not found:
            raise DraftError(GONE)
        return found[item_id]

    def _in_order(self) -> list[Item]:
        return sorted(self._items.values(), key=lambda item: (item.place, item.id))

    def _lay(self, items: Iterable[Item]) -> None:
        samples = [sample_of(item, self.queue_id) for item in items]
        if samples:
            self._dataset.add_samples(samples, progress=False)

    def _clear(self, names: Sequence[str]) -> None:
        """Take items off that are not answered; what was drawn there is kept in the log."""
        if not names:
            return
        for sample in self._samples.find({"item": {"$in": list(names)}}):
            if sample.get("last_modified_at") != sample.get("created_at"):
                body = json_util.dumps({"item": sample["item"], QUESTION: sample.get(QUESTION)}).encode()
                self.queue.log(self.reviewer, "DRAFT", "/desk", body, _GONE_STATUS)
        self._take_off(names)

    def _take_off(self, names: Sequence[str]) -> None:
        self._samples.delete_many({"item": {"$in": list(names)}})
        for name in names:
            self._items.pop(name, None)


def card_of(item: Item, sample_id: str) -> Card:
    """Tell of an item.

    Args:
        item: What is asked.
        sample_id: Of the sample that shows it.
    """
    return {
        "sample": sample_id,
        "item": item.id,
        "label": None if item.label_id is None else str(object_id(item.label_id)),
        "kind": item.kind,
        "key": item.key,
        "class_name": item.class_name,
        "ask": question_of(item),
        "why": item.words,
        "width": item.width,
        "height": item.height,
        "box": item.box,
        "masked": item.rle is not None,
    }


def desk_name(queue: str, reviewer: str) -> str:
    """Name a reviewer's desk: readable, and another one for every reviewer however alike two are written.

    Args:
        queue: Id of the queue.
        reviewer: The reviewer's name as verdicts carry it.
    """
    return f"vouch-{queue}-{reviewer_slug(reviewer)}"


def reviewer_slug(reviewer: str) -> str:
    """A reviewer's name in the letters of file names and addresses."""
    slug = re.sub(r"[^a-z0-9]+", "-", reviewer.lower(), flags=re.ASCII).strip("-")[:_LONGEST].rstrip("-")
    if slug == reviewer:
        return slug
    return f"{slug}-{hashlib.sha256(reviewer.encode()).hexdigest()[:6]}".lstrip("-")
