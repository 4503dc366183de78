"""The review queue as a reviewer sees it: take, renew, submit, skip and undo items.

An answer is recorded once and on disk before it is acknowledged; answers to items that another reviewer has by then are
kept apart. One that a pull has brought into the workspace is not taken back: the mark `pulled` is one field, set on
condition, so that of a pull and an undo that race one wins.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Self

from bson import Binary
from pymongo import ASCENDING, DESCENDING, ReturnDocument

from vouch_labels.review_ui.queue import answers, state
from vouch_labels.review_ui.queue.answers import UNDONE, answer_key, checked_rows, edit_iou
from vouch_labels.review_ui.queue.database import (
    Document,
    QueueStore,
    What,
    connect,
    translated_errors,
    translates_errors,
)
from vouch_labels.review_ui.queue.items import items_of
from vouch_labels.schemas.errors import LeaseLostError, VouchError
from vouch_labels.schemas.queue import Item, Kind, VerdictRow

_ATTEMPTS: Final = 10
"""At an item that others keep taking in between."""


class Queue(QueueStore):
    """The queue of one run, whose database may fail by a UserError or VouchError; safe for use from many threads."""

    @classmethod
    def open(cls, uri: str, queue_id: str) -> Self:
        """Connect to a queue that review_ui.queue.fill has filled; use it in a with block, or close it.

        Raises:
            UserError: There is no such queue.
        """
        database = connect(uri)
        try:
            queue = cls.read(database, queue_id)
            with translated_errors(database.where):
                queue.complete()
        except BaseException:
            database.close()
            raise
        return queue

    def close(self) -> None:
        """Give connections back; leases stay until they run out."""
        self.database.close()

    def __enter__(self) -> Self:
        """Nothing to do: the queue is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @translates_errors
    def take(self, reviewer: str, count: int, *, kind: Kind | None = None, class_name: str | None = None) -> list[Item]:
        """Lease items until the reviewer holds `count` of those asked for, and renew the leases held.

        Each is leased atomically, in the order of `place`; never one that this reviewer has answered, and one that they
        have skipped only when nothing else is left. The class "" asks for questions about every class.

        Returns:
            All items that the reviewer holds of those asked for, those held before included, by place.
        """
        only: Document = {} if kind is None else {"kind": kind}
        if class_name is not None:
            only["class_name"] = self.carried_name(class_name) or None
        self.renew(reviewer)
        self.expire(but=reviewer)
        before = {item["_id"] for item in self._leased_to(reviewer, only)}
        missing = count - len(before)
        # Those that were skipped only when nothing else is left.
        for skipped in ({"$ne": reviewer}, reviewer):
            missing -= self._lease(reviewer, missing, {**only, "skipped_by": skipped})
        found = self._leased_to(reviewer, only)
        self._record_leases("leased", reviewer, [item for item in found if item["_id"] not in before])
        return items_of(self, found, reviewer)

    @translates_errors
    def held(self, reviewer: str) -> list[Item]:
        """List what a reviewer holds, by place."""
        return items_of(self, self._leased_to(reviewer), reviewer)

    @translates_errors
    def renew(self, reviewer: str) -> datetime:
        """Renew all leases of a reviewer, also one that ran out while the item was free; returns when they run out."""
        mine = {"queue": self.id, "leases.reviewer": reviewer}
        self.database.items.update_many(mine, state.renew(reviewer, self.lease_ms))
        return self.database.now() + timedelta(milliseconds=self.lease_ms)

    @translates_errors
    def give_back(self, reviewer: str, items: Sequence[str] | None = None) -> int:
        """Return items unanswered; None: all that the reviewer holds. Returns how many there were."""
        returned = []
        for item in self._leased_to(reviewer, {} if items is None else {"item": {"$in": list(items)}}):
            lease = _lease_of(reviewer, state.epoch_of(item, reviewer))
            if self._update({"_id": item["_id"], "leases": lease}, state.release(reviewer)):
                returned.append(item)
        self._record_leases("returned", reviewer, returned)
        return len(returned)

    @translates_errors
    def expire(self, but: str | None = None) -> int:
        """End leases that ran out, but those of one reviewer; returns how many.

        An answer of which the server kept the event and no more, because it or we were killed in between, is completed.
        """
        now = self.database.now()
        over = {"$elemMatch": {"until": {"$lt": now}, "reviewer": {"$ne": but}}}
        return sum(
            self._expire(item, one, now)
            for item in self.database.items.find({"queue": self.id, "leases": over})
            for one in item["leases"]
            if one["until"] < now and one["reviewer"] != but
        )

    @translates_errors
    def submit(
        self,
        reviewer: str,
        item_id: str,
        epoch: int,
        rows: Sequence[VerdictRow],
        seconds: float | None,
        *,
        simulated: bool = False,
    ) -> None:
        """Record an answer; when this returns, it is on the server's disk.

        The same answer to the same item and epoch again changes nothing. An answer after the lease ran out counts as
        long as nobody else has the item. `rows` are verdicts: one about the label (or `checked` of the image), and one
        for every missed object. `seconds` were spent; None where that is unknown.

        Raises:
            LeaseLostError: The item is another's by now, not asked any more, or was answered otherwise at this epoch;
                the rows are kept in the log.
            ValueError: The rows are no verdicts about this item.
        """
        item = self.database.items.find_one({"_id": self.key_of(item_id)})
        if item is None:
            raise ValueError(f"{item_id!r} is no item of the queue")
        carried = [{**row, "class_name": self.carried_name(row.get("class_name"))} for row in rows]
        verdicts = checked_rows(carried, item, self.classes)
        if seconds is not None and not 0 <= seconds < math.inf:
            raise ValueError(f"{seconds} is no time that an answer can take")
        key = answer_key(item_id, reviewer, epoch)
        details: Document = {
            "item": item_id, "epoch": epoch, "kind": item["kind"], "key": item["key"], "seconds": seconds,
            "simulated": simulated, "verdict": verdicts[0]["verdict"], "verdicts": verdicts,
            "twice": item["wanted"] > 1, "box_iou": edit_iou(item, verdicts[0]),
            "hinted": bool(self.happened("hinted", [_hint_key(item_id, reviewer)])),
        }  # fmt: skip
        if self._secure_lease(item, reviewer, epoch):
            # The event first: what is acknowledged is in the log, and the item can be completed from it.
            new = self.record_once("submitted", reviewer, key, details)
            durable = self.database.items.with_options(write_concern=self.database.events.write_concern)
            durable.update_one({"_id": item["_id"]}, state.answer(reviewer))
            if new:
                return
        before = self.event("submitted", key)
        # Else sent twice, or answered, and the server was killed before it could confirm it.
        if before is None or before["verdicts"] != verdicts:
            self.record_once("late", reviewer, key, details)
            raise LeaseLostError(_not_counted(item, is_answered=before is not None))

    @translates_errors
    def record_hint(self, reviewer: str, item_id: str) -> None:
        """Record that a reviewer asked what the models say of an item; their answers to it are marked from then on."""
        self.record_once("hinted", reviewer, _hint_key(item_id, reviewer), {"item": item_id})

    @translates_errors
    def skip(self, reviewer: str, item_id: str, epoch: int) -> None:
        """Return an item, and see it again only when nothing else is left; nothing happens if it is not held."""
        mine = {"_id": self.key_of(item_id), "leases": _lease_of(reviewer, epoch)}
        if self._update(mine, state.skip(reviewer)):
            self.record("skipped", reviewer, [{"item": item_id, "epoch": epoch}])

    @translates_errors
    def undo(self, reviewer: str) -> Item | None:
        """Take back the reviewer's last answer and lease its item to them again; None without an answer.

        Raises:
            VouchError: A pull has the answer, which stays; or it was taken back, but the item is another's by now.
        """
        mine = {"queue": self.id, "what": "submitted", "reviewer": reviewer}
        last = self.database.events.find_one(
            mine | {"seq": {"$nin": self.undone(reviewer=reviewer)}}, sort=[("seq", DESCENDING)]
        )
        if last is None:
            return None
        free = {"_id": last["_id"], "pulled": {"$in": [None, UNDONE]}}
        if not self.database.events.update_one(free, {"$set": {"pulled": UNDONE}}).matched_count:
            gone = "your last answer has gone to the workspace and cannot be taken back here"
            if last["kind"] != "label":
                raise VouchError(f"{gone}: what was checked and drawn stays")
            raise VouchError(
                f"{gone}; to replace it, import another verdict of yours on the label: vouch verdicts CAMPAIGN FILE"
            )
        # The item before the event: were we killed in between, the next undo, or `complete`, does the rest.
        item: Document | None = self.database.items.find_one_and_update(
            {"_id": self.key_of(last["item"])},
            state.take_back(reviewer, self.lease_ms),
            return_document=ReturnDocument.AFTER,
        )
        self._record_undo(last)
        if item is None:
            return None
        if all(one["reviewer"] != reviewer for one in item["leases"]):
            raise VouchError(f"your answer is taken back, but the question about {item['key']} is another's by now")
        return items_of(self, [item], reviewer)[0]

    @translates_errors
    def taken_back(self, reviewer: str, item_id: str) -> Sequence[VerdictRow]:
        """Read the answer to an item that the reviewer took back last: the row about the item first; empty if none."""
        mine = {"queue": self.id, "reviewer": reviewer, "item": item_id}
        last = self.database.events.find_one(mine | {"what": "undone"}, sort=[("seq", DESCENDING)])
        if last is None:
            return []
        event = self.database.events.find_one(mine | {"what": "submitted", "seq": last["of"]})
        rows: Sequence[VerdictRow] = [] if event is None else event["verdicts"]
        return rows

    @translates_errors
    def answered(self, reviewer: str, items: Sequence[str]) -> dict[str, Sequence[VerdictRow]]:
        """Read the reviewer's last answers to these items, without those taken back: the row about the item first."""
        keys = [self.key_of(name) for name in items]
        items_found = self.database.items.find({"_id": {"$in": keys}, "answered_by": reviewer}, {"item": 1})
        mine = {"reviewer": reviewer, "item": {"$in": [one["item"] for one in items_found]}}
        wanted = {"queue": self.id, "what": "submitted", **mine, "seq": {"$nin": self.undone(**mine)}}
        found = self.database.events.find(wanted).sort("seq", ASCENDING)
        return {
            event["item"]: [{**row, "class_name": self.shown_name(row["class_name"])} for row in event["verdicts"]]
            for event in found
        }

    @translates_errors
    def holds(self, reviewer: str, item_id: str) -> bool:
        """Whether the item is the reviewer's; also after the lease ran out, until it is given to another reviewer."""
        mine = {"_id": self.key_of(item_id), "leases.reviewer": reviewer}
        return self.database.items.find_one(mine, {"_id": 1}) is not None

    @translates_errors
    def has_image(self, key: str) -> bool:
        """Whether a key is that of an image of the queue."""
        return self.database.images.find_one({"_id": self.key_of(key)}, {"_id": 1}) is not None

    @translates_errors
    def log(self, reviewer: str, method: str, path: str, body: bytes, status: int) -> None:
        """Record a change request, whatever became of it; a body beyond `answers.MOST_BYTES` is cut, and marked so."""
        kept = body[: answers.MOST_BYTES]
        text: object
        try:
            text = kept.decode()
        except UnicodeDecodeError:
            text = Binary(kept)
        entry: Document = {
            "queue": self.id, "reviewer": reviewer, "method": method, "path": path, "body": text, "status": status,
            "cut": len(body) > answers.MOST_BYTES,
            # By the server: the one clock of everything that is logged.
            "at": self.database.now(),
        }  # fmt: skip
        self.database.requests.insert_one(entry)

    @translates_errors
    def complete(self) -> None:
        """Complete answers and undos of which the server kept the event or the mark and no more."""
        leased = list(self.database.items.find({"queue": self.id, "leases.0": {"$exists": True}}))
        keys = {answer_key(item["item"], one["reviewer"], one["epoch"]): (item["_id"], one["reviewer"])
                for item in leased for one in item["leases"]}  # fmt: skip
        for key in self.happened("submitted", keys):
            item_key, reviewer = keys[key]
            self._update({"_id": item_key}, state.answer(reviewer))
        wanted = {"queue": self.id, "what": "submitted", "pulled": UNDONE, "seq": {"$nin": self.undone()}}
        for last in self.database.events.find(wanted):
            # What others keep changing waits for the next time: only what has happened is recorded.
            for _ in range(_ATTEMPTS):
                if self._complete_undo(last):
                    break

    def _leased_to(self, reviewer: str, only: Document | None = None) -> list[Document]:
        wanted = {"queue": self.id, "leases.reviewer": reviewer, **(only or {})}
        return list(self.database.items.find(wanted).sort("place", ASCENDING))

    def _update(self, wanted: Document, change: list[state.Stage]) -> bool:
        return bool(self.database.items.update_one(wanted, change).modified_count)

    def _lease(self, reviewer: str, count: int, only: Document) -> int:
        """Lease up to `count` items in their order; returns how many there were.

        The first free ones are looked up and then changed on condition that they still are free, each atomically: of
        two reviewers who saw the same ones each gets what the other did not, and looks again.
        """
        free = {"queue": self.id, **_free_for(reviewer), **only}
        items, taken = self.database.items, 0
        while taken < count:
            first = items.find(free, {"_id": 1}).sort("place", ASCENDING).limit(count - taken)
            keys = [item["_id"] for item in first]
            if not keys:
                break
            change = state.lease(reviewer, self.lease_ms)
            taken += items.update_many({"_id": {"$in": keys}, **free}, change).modified_count
        return taken

    def _secure_lease(self, item: Document, reviewer: str, epoch: int) -> bool:
        """Make sure that the item is the reviewer's while the answer is written: renew the lease, or get it back."""
        mine = {"_id": item["_id"], "leases": _lease_of(reviewer, epoch)}
        if self.database.items.update_one(mine, state.renew(reviewer, self.lease_ms)).matched_count:
            return True
        if self.happened("submitted", [answer_key(item["item"], reviewer, epoch)]):
            return False
        free = {"_id": item["_id"], **_free_for(reviewer), "epoch": {"$gte": epoch}}
        return self._update(free, state.lease(reviewer, self.lease_ms, epoch))

    def _expire(self, item: Document, one: Document, now: datetime) -> bool:
        reviewer, epoch = one["reviewer"], one["epoch"]
        if self.happened("submitted", [answer_key(item["item"], reviewer, epoch)]):
            self._update({"_id": item["_id"]}, state.answer(reviewer))
            return False
        # Not if it was renewed in the meantime.
        still = {"$elemMatch": {"reviewer": reviewer, "epoch": epoch, "until": {"$lt": now}}}
        ended = self._update({"_id": item["_id"], "leases": still}, state.release(reviewer))
        if ended:
            self.record("expired", reviewer, [{"item": item["item"], "epoch": epoch}])
        return ended

    def _complete_undo(self, last: Document) -> bool:
        """Take an answer out of its item and record that; False: the item changed meanwhile, and nothing was done."""
        item = self.database.items.find_one({"_id": self.key_of(last["item"])})
        # In this order: whoever is taking it back right now has by then changed the item, or recorded the event.
        if item is None or self.happened("undone", [_key(last)]):
            return True
        if last["reviewer"] in item["answered_by"]:
            as_seen = {"_id": item["_id"], "epoch": item["epoch"], "answered_by": last["reviewer"]}
            if not self.database.items.update_one(as_seen, state.remove_answer(last["reviewer"])).matched_count:
                return False
        self._record_undo(last)
        return True

    def _record_undo(self, last: Document) -> None:
        details = {name: last[name] for name in ("item", "epoch", "key")} | {"of": last["seq"]}
        self.record_once("undone", last["reviewer"], _key(last), details)

    def _record_leases(self, what: What, reviewer: str, items: Sequence[Document]) -> None:
        details = [{"item": item["item"], "epoch": state.epoch_of(item, reviewer)} for item in items]
        self.record(what, reviewer, details)


def _free_for(reviewer: str) -> Document:
    return {"state": "open", "answered_by": {"$ne": reviewer}, "leases.reviewer": {"$ne": reviewer}}


def _lease_of(reviewer: str, epoch: int) -> Document:
    return {"$elemMatch": {"reviewer": reviewer, "epoch": epoch}}


def _hint_key(item_id: str, reviewer: str) -> str:
    return f"{item_id}/{reviewer}"


def _key(event: Document) -> str:
    return answer_key(event["item"], event["reviewer"], event["epoch"])


def _not_counted(item: Document, *, is_answered: bool) -> str:
    what = f"the question about {item['key']}"
    if is_answered:
        return (
            f"{what} has another answer of yours already; to change it, take it back (Alt+Z): this one is kept in the "
            "log, and does not count"
        )
    if item["state"] == "gone":
        return f"{what} is not asked any more: your answer is kept in the log, and does not count"
    return f"your lease ran out and {what} is another's by now: your answer is kept in the log, and does not count"
