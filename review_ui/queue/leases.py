"""Leases items to reviewers for a time, no item to more people than it needs."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo import ASCENDING

from vouch_labels.review_ui.queue import state
from vouch_labels.review_ui.queue.database import Document, Session, What
from vouch_labels.schemas.queue import Kind


def take(
    session: Session, reviewer: str, count: int, kind: Kind | None = None, class_name: str | None = None
) -> list[Document]:
    """Lease items until a reviewer holds `count`, see review_ui.queue.queue.Queue.take; gives their documents."""
    only: Document = {} if kind is None else {"kind": kind}
    if class_name is not None:
        only["class_name"] = class_name or None
    renew(session, reviewer)
    expire(session, but=reviewer)
    before = {item["_id"] for item in held(session, reviewer, only)}
    missing = count - len(before)
    # Those that were skipped only when nothing else is left.
    for skipped in ({"$ne": reviewer}, reviewer):
        missing -= _take_some(session, reviewer, missing, {**only, "skipped_by": skipped})
    found = held(session, reviewer, only)
    _record(session, "leased", reviewer, [item for item in found if item["_id"] not in before])
    return found


def held(session: Session, reviewer: str, only: Document | None = None) -> list[Document]:
    """Find what a reviewer holds, by place."""
    wanted = {"queue": session.queue, "leases.reviewer": reviewer, **(only or {})}
    return list(session.database.items.find(wanted).sort("place", ASCENDING))


def epoch_of(item: Document, reviewer: str) -> int:
    """The number of a reviewer's lease of an item that he holds."""
    found: int = next(one["epoch"] for one in item["leases"] if one["reviewer"] == reviewer)
    return found


def renew(session: Session, reviewer: str) -> datetime:
    """Let all leases of a reviewer run from now on, also those that ran out and that nobody has ended yet."""
    session.database.items.update_many(
        {"queue": session.queue, "leases.reviewer": reviewer}, state.renew(reviewer, session.lease_ms)
    )
    return session.database.now() + timedelta(milliseconds=session.lease_ms)


def give_back(session: Session, reviewer: str, items: Sequence[str] | None = None) -> int:
    """End leases of a reviewer without an answer; None: all of them."""
    only: Document = {} if items is None else {"item": {"$in": list(items)}}
    returned = []
    for item in held(session, reviewer, only):
        if _end(session, item, reviewer):
            returned.append(item)
    _record(session, "returned", reviewer, returned)
    return len(returned)


def expire(session: Session, but: str | None = None) -> int:
    """End leases that ran out; returns how many.

    An answer of which the server kept the event and no more, because it or we were killed in between, is completed.

    Args:
        session: The queue.
        but: Whose leases stay, as he is there.
    """
    now = session.database.now()
    over = {"$elemMatch": {"until": {"$lt": now}, "reviewer": {"$ne": but}}}
    ended = 0
    for item in session.database.items.find({"queue": session.queue, "leases": over}):
        for one in item["leases"]:
            if one["until"] < now and one["reviewer"] != but:
                ended += _expire_one(session, item, one, now)
    return ended


def complete(session: Session) -> None:
    """Complete the answers of which the server kept the event and no more."""
    leased = list(session.database.items.find({"queue": session.queue, "leases.0": {"$exists": True}}))
    keys = {answer_key(item["item"], one["reviewer"], one["epoch"]): (item, one["reviewer"])
            for item in leased for one in item["leases"]}  # fmt: skip
    for key in session.happened("submitted", keys):
        item, reviewer = keys[key]
        session.database.items.update_one({"_id": item["_id"]}, state.answer(reviewer))


def answer_key(item_id: str, reviewer: str, epoch: int) -> str:
    """Says which answer it is: a reviewer gives one for each lease."""
    return f"{epoch}/{item_id}/{reviewer}"


def _take_some(session: Session, reviewer: str, count: int, only: Document) -> int:
    """Lease up to `count` items in their order; returns how many there were.

    The first free ones are looked up and then changed on condition that they still are free, each atomically: of two
    reviewers who saw the same ones each gets what the other did not, and looks again.
    """
    free: Document = {
        "queue": session.queue,
        "state": "open",
        "answered_by": {"$ne": reviewer},
        "leases.reviewer": {"$ne": reviewer},
        **only,
    }
    items, taken = session.database.items, 0
    while taken < count:
        first = items.find(free, {"_id": 1}).sort("place", ASCENDING).limit(count - taken)
        keys = [item["_id"] for item in first]
        if not keys:
            break
        change = state.lease(reviewer, session.lease_ms)
        taken += items.update_many({"_id": {"$in": keys}, **free}, change).modified_count
    return taken


def _expire_one(session: Session, item: Document, one: Document, now: datetime) -> bool:
    reviewer, epoch = one["reviewer"], one["epoch"]
    if session.happened("submitted", [answer_key(item["item"], reviewer, epoch)]):
        session.database.items.update_one({"_id": item["_id"]}, state.answer(reviewer))
        return False
    # Not if it was renewed in the meantime.
    still = {"$elemMatch": {"reviewer": reviewer, "epoch": epoch, "until": {"$lt": now}}}
    done = session.database.items.update_one({"_id": item["_id"], "leases": still}, state.release(reviewer))
    if done.modified_count:
        session.record("expired", reviewer, {"item": item["item"], "epoch": epoch})
    return bool(done.modified_count)


def _end(session: Session, item: Document, reviewer: str) -> bool:
    lease = {"$elemMatch": {"reviewer": reviewer, "epoch": epoch_of(item, reviewer)}}
    done = session.database.items.update_one({"_id": item["_id"], "leases": lease}, state.release(reviewer))
    return bool(done.modified_count)


def _record(session: Session, what: What, reviewer: str, items: Sequence[Document]) -> None:
    session.record_all(what, reviewer, [{"item": item["item"], "epoch": epoch_of(item, reviewer)} for item in items])
