"""Takes answers: each once, on disk before it is acknowledged, late ones kept apart; skips."""

import math
from collections.abc import Sequence

from review_ui.queue import state
from review_ui.queue.connect import Document
from review_ui.queue.lease import answer_key
from review_ui.queue.rows import checked_rows, edit_iou
from review_ui.queue.session import Session
from schemas.errors import LeaseLostError
from schemas.queue import VerdictRow


def submit(
    session: Session,
    reviewer: str,
    item_id: str,
    epoch: int,
    rows: Sequence[VerdictRow],
    seconds: float | None,
    simulated: bool = False,
) -> None:
    """Record an answer, see review_ui.queue.queue.Queue.submit."""
    item = session.database.items.find_one({"_id": session.key_of(item_id)})
    if item is None:
        raise ValueError(f"{item_id!r} is no item of the queue")
    said = checked_rows(rows, item, session.classes)
    if seconds is not None and not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} is no time that an answer can take")
    key = answer_key(item_id, reviewer, epoch)
    details: Document = {
        "item": item_id, "epoch": epoch, "kind": item["kind"], "key": item["key"], "seconds": seconds,
        "simulated": simulated, "verdict": said[0]["verdict"], "verdicts": said, "twice": item["wanted"] > 1,
        "box_iou": edit_iou(item, said[0]),
    }  # fmt: skip
    if _hold(session, item, reviewer, epoch):
        # The event first: what is acknowledged is in the log, and the item can be mended from it.
        new = session.record_once("submitted", reviewer, key, details)
        _durably(session, item, state.answer(reviewer))
        if new:
            return
    before = session.happening("submitted", key)
    # Else sent twice, or answered, and the server was killed before it could say so.
    if before is None or before["verdicts"] != said:
        session.record_once("late", reviewer, key, details)
        raise LeaseLostError(_lost(item) if before is None else _said_before(item))


def skip(session: Session, reviewer: str, item_id: str, epoch: int) -> None:
    """Return an item to be asked again later, see review_ui.queue.queue.Queue.skip."""
    mine = {"_id": session.key_of(item_id), "leases": _lease_of(reviewer, epoch)}
    done = session.database.items.update_one(mine, state.skip(reviewer))
    if done.modified_count:
        session.record("skipped", reviewer, {"item": item_id, "epoch": epoch})


def _hold(session: Session, item: Document, reviewer: str, epoch: int) -> bool:
    """Make sure that the item is the reviewer's while his answer is written: renew the lease, or get it back."""
    items = session.database.items
    renewed = items.update_one(
        {"_id": item["_id"], "leases": _lease_of(reviewer, epoch)}, state.renew(reviewer, session.lease_ms)
    )
    if renewed.matched_count:
        return True
    free = {
        "_id": item["_id"],
        "state": "open",
        "answered_by": {"$ne": reviewer},
        "leases.reviewer": {"$ne": reviewer},
        "epoch": {"$gte": epoch},
    }
    if session.happened("submitted", [answer_key(item["item"], reviewer, epoch)]):
        return False
    return bool(items.update_one(free, state.lease(reviewer, session.lease_ms, epoch)).modified_count)


def _durably(session: Session, item: Document, change: list[state.Stage]) -> None:
    """Change an item, and return when that is on disk."""
    items = session.database.items.with_options(write_concern=session.database.events.write_concern)
    items.update_one({"_id": item["_id"]}, change)


def _lease_of(reviewer: str, epoch: int) -> Document:
    return {"$elemMatch": {"reviewer": reviewer, "epoch": epoch}}


def _said_before(item: Document) -> str:
    return (
        f"the question about {item['key']} has another answer of yours already; to change it, take it back (Alt+Z): "
        "this one is kept in the log, and does not count"
    )


def _lost(item: Document) -> str:
    what = f"the question about {item['key']}"
    if item["state"] == "gone":
        return f"{what} is not asked any more: your answer is kept in the log, and does not count"
    return f"your lease ran out and {what} is another's by now: your answer is kept in the log, and does not count"
