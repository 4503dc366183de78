"""A reviewer's session: takes items from the queue, shows them in FiftyOne, and submits answers."""

import hashlib
import re
import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypedDict

from bson import ObjectId, json_util
from pymongo.collection import Collection

from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.review_ui.session.read_back import Choice, Document, DraftError, Row, read_back
from vouch_labels.review_ui.session.samples import (
    QUESTION,
    format_answer,
    object_id,
    open_dataset,
    question_of,
    sample_of,
)
from vouch_labels.schemas.errors import LeaseLostError
from vouch_labels.schemas.queue import Box, Item, Kind, Progress

_GONE_STATUS: Final = 410
"""Status in the log of a draft whose lease is over."""
GONE: Final = "this item is not in your session any more; go on with the next one"
_NO_HINT: Final = "the models say nothing of this"
_LONGEST_S: Final = 3600.0
"""More time on one image means that the browser was left alone."""

_LONGEST: Final = 32


class Undone(NamedTuple):
    """An answer that was taken back."""

    item: str
    answer: str
    """In one line."""


class ItemSummary(TypedDict):
    """An item as the browser gets it; nothing in it reveals what it is asked for, or what the models say of it."""

    sample: str
    """Id of its sample."""
    item: str
    label: str | None
    """Id of the label in FiftyOne; None for a question about an image."""
    kind: Kind
    key: str
    """Of the image."""
    class_name: str | None
    ask: str
    width: int
    height: int
    box: Box | None
    masked: bool
    """Whether the label has a mask, without which its box can be moved."""


class ReviewSession:
    """The items that one reviewer holds, each a sample of one FiftyOne dataset; safe for use from many threads.

    Its samples can be deleted and made again: answers are in the queue, and drafts of leases that are over in its log.
    """

    def __init__(self, queue: Queue, reviewer: str) -> None:
        """Open the reviewer's dataset, or make it, and show what they hold."""
        self.queue, self.reviewer, self.name = queue, reviewer, dataset_name(queue.id, reviewer)
        self.lock = threading.RLock()
        """Held for several steps between which nothing may happen."""
        self.classes = queue.shown
        self._dataset = open_dataset(self.name, self.classes)
        self._items: dict[str, Item] = {}
        self.refresh()

    @property
    def dataset_id(self) -> str:
        """Hex id of its dataset."""
        return str(self._dataset._doc.id)

    def take(self, count: int, kind: Kind | None = None, class_name: str | None = None) -> list[ItemSummary]:
        """Take items until there are `count` of those asked for, and return all of the session."""
        with self.lock:
            self.queue.take(self.reviewer, count, kind=kind, class_name=class_name)
            return self.refresh()

    def open(self, count: int) -> str | None:
        """The sample of the item that comes first; takes up to `count` items where there is none (0: takes none)."""
        with self.lock:
            items = self.refresh() or (self.take(count) if count else [])
        return items[0]["sample"] if items else None

    def refresh(self) -> list[ItemSummary]:
        """Make the dataset show what the reviewer holds: nothing more, and nothing less."""
        with self.lock:
            held = self.queue.held(self.reviewer)
            self._items = {item.id: item for item in held}
            shown = {one["item"] for one in self._samples.find({}, {"item": True})}
            self._clear([name for name in shown if name not in self._items])
            if samples := [sample_of(item, self.queue.id) for item in held if item.id not in shown]:
                self._dataset.add_samples(samples, progress=False)
            return self.items()

    def items(self) -> list[ItemSummary]:
        """The items of the session, by place."""
        with self.lock:
            ids = {one["item"]: str(one["_id"]) for one in self._samples.find({}, {"item": True})}
            in_order = sorted(self._items.values(), key=lambda item: (item.place, item.id))
            return [summarize(item, ids[item.id]) for item in in_order if item.id in ids]

    def item_of(self, sample_id: str) -> str | None:
        """The item that a sample shows; None if there is no such sample."""
        found = self._samples.find_one({"_id": ObjectId(sample_id)}, {"item": True})
        return None if found is None else str(found["item"])

    def drafts(self, items: Sequence[str]) -> dict[str, tuple[Item, Document]]:
        """Those of the items that are in the session, each with its sample's document as it is now."""
        with self.lock:
            if not self._items.keys() >= set(items):
                self.refresh()
            found = {one["item"]: one for one in self._samples.find({"item": {"$in": list(items)}})}
            return {name: (self._items[name], found[name]) for name in items if name in self._items and name in found}

    def submit(
        self, item_id: str, seconds: float | None = None, choice: Choice = "as_shown", class_name: str | None = None
    ) -> None:
        """Answer an item as it is drawn, or by a verdict that needs no edit, see read_back; its sample is removed.

        Raises:
            DraftError: It is no answer yet; it stays in the session.
            LeaseLostError: It is another's by now; it leaves the session, and the answer is kept in the log.
        """
        with self.lock:
            item, sample = self._at(item_id)
            self.submit_rows(item, read_back(sample, item, self.classes, choice, class_name), seconds)

    def submit_rows(self, item: Item, rows: Sequence[Row], seconds: float | None) -> None:
        """Submit rows that read_back made about an item of the session; its sample is removed.

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
            self._remove([item.id])

    def hint(self, item_id: str) -> str:
        """What the models say of an item, in one line; that it was asked for is recorded, as it may lead the answer."""
        with self.lock:
            item, _ = self._at(item_id)
            self.queue.record_hint(self.reviewer, item.id)
        return item.reason or _NO_HINT

    def skip(self, item_id: str) -> None:
        """Give an item back unanswered; it comes again when nothing else is left."""
        with self.lock:
            item, _ = self._at(item_id)
            self.queue.skip(self.reviewer, item.id, item.epoch)
            self._clear([item.id])

    def undo(self) -> Undone | None:
        """Take the last answer back; None without one.

        Its item is in the session again with all that was drawn for the answer, see review_ui.session.samples.
        """
        with self.lock:
            item = self.queue.undo(self.reviewer)
            if item is None:
                return None
            answer = self.queue.taken_back(self.reviewer, item.id)
            self._clear([item.id])
            self._items[item.id] = item
            self._dataset.add_sample(sample_of(item, self.queue.id, answer))
            return Undone(item.id, format_answer(answer))

    def holds(self, item_id: str) -> bool:
        """Whether the reviewer holds the lease of an item now."""
        return self.queue.holds(self.reviewer, item_id)

    def has_image(self, key: str) -> bool:
        """Whether a key is that of an image of the queue."""
        return self.queue.has_image(key)

    def log(self, method: str, path: str, body: bytes, status: int) -> None:
        """Record a change request of the reviewer, and its HTTP status."""
        self.queue.log(self.reviewer, method, path, body, status)

    def give_back(self) -> int:
        """Return all items unanswered, and remove their samples; returns how many there were."""
        with self.lock:
            returned = self.queue.give_back(self.reviewer)
            self.refresh()
            return returned

    def progress(self) -> Progress:
        """The progress of the queue, as this reviewer may see it."""
        return progress(self.queue, self.reviewer)

    @property
    def _samples(self) -> Collection[dict[str, Any]]:
        found: Collection[dict[str, Any]] = self._dataset._sample_collection
        return found

    def _at(self, item_id: str) -> tuple[Item, Document]:
        found = self.drafts([item_id])
        if not found:
            raise DraftError(GONE)
        return found[item_id]

    def _clear(self, names: Sequence[str]) -> None:
        """Remove items that are not answered; what was drawn is kept in the log."""
        if not names:
            return
        for sample in self._samples.find({"item": {"$in": list(names)}}):
            if sample.get("last_modified_at") != sample.get("created_at"):
                body = json_util.dumps({"item": sample["item"], QUESTION: sample.get(QUESTION)}).encode()
                self.log("DRAFT", "/session", body, _GONE_STATUS)
        self._remove(names)

    def _remove(self, names: Sequence[str]) -> None:
        self._samples.delete_many({"item": {"$in": list(names)}})
        for name in names:
            self._items.pop(name, None)


def summarize(item: Item, sample_id: str) -> ItemSummary:
    """Summarize an item for the browser."""
    return {
        "sample": sample_id,
        "item": item.id,
        "label": None if item.label_id is None else str(object_id(item.label_id)),
        "kind": item.kind,
        "key": item.key,
        "class_name": item.class_name,
        "ask": question_of(item),
        "width": item.width,
        "height": item.height,
        "box": item.box,
        "masked": item.rle is not None,
    }


def dataset_name(queue: str, reviewer: str) -> str:
    """Name the FiftyOne dataset of a session: readable, and different for reviewers whose names look alike."""
    return f"vouch-{queue}-{reviewer_slug(reviewer)}"


def reviewer_slug(reviewer: str) -> str:
    """A reviewer's name in the letters of file names and addresses."""
    slug = re.sub(r"[^a-z0-9]+", "-", reviewer.lower(), flags=re.ASCII).strip("-")[:_LONGEST].rstrip("-")
    if slug == reviewer:
        return slug
    return f"{slug}-{hashlib.sha256(reviewer.encode()).hexdigest()[:6]}".lstrip("-")
