"""Takes a reviewer's last answer back, as long as no pull has brought it into the workspace, which never forgets."""

from typing import Final

from pymongo import DESCENDING, ReturnDocument

from review_ui.queue import state
from review_ui.queue.connect import Document
from review_ui.queue.lease import answer_key
from review_ui.queue.marks import UNDONE
from review_ui.queue.session import Session
from schemas.errors import VouchError

_LOOKS: Final = 10
"""At an item that others keep taking in between."""


def undo(session: Session, reviewer: str) -> Document | None:
    """Take the last answer that stands back, see review_ui.queue.queue.Queue.undo; gives the item's document."""
    last = session.database.events.find_one(
        {
            "queue": session.queue,
            "what": "submitted",
            "reviewer": reviewer,
            "seq": {"$nin": session.undone(reviewer=reviewer)},
        },
        sort=[("seq", DESCENDING)],
    )
    if last is None:
        return None
    mine = {"_id": last["_id"], "pulled": {"$in": [None, UNDONE]}}
    if not session.database.events.update_one(mine, {"$set": {"pulled": UNDONE}}).matched_count:
        raise VouchError(_pulled(last))
    # The item before the event: were we killed in between, the next undo, or complete_undone, does the rest.
    item: Document | None = session.database.items.find_one_and_update(
        {"_id": session.key_of(last["item"])},
        state.take_back(reviewer, session.lease_ms),
        return_document=ReturnDocument.AFTER,
    )
    _record(session, last)
    if item is not None and all(one["reviewer"] != reviewer for one in item["leases"]):
        raise VouchError(f"your answer is taken back, but the question about {item['key']} is another's by now")
    return item


def complete_undone(session: Session) -> None:
    """Complete what was taken back and of which the server kept the mark and no more."""
    wanted = {"queue": session.queue, "what": "submitted", "pulled": UNDONE, "seq": {"$nin": session.undone()}}
    for last in session.database.events.find(wanted):
        # What finds no moment in so many looks waits for the next time: only what has happened is recorded.
        for _ in range(_LOOKS):
            if _complete(session, last):
                break


def _complete(session: Session, last: Document) -> bool:
    """Take an answer out of its item and record that; False: the item changed meanwhile, and nothing has happened."""
    item = session.database.items.find_one({"_id": session.key_of(last["item"])})
    # In this order: whoever is taking it back right now has by then changed the item, or recorded the event.
    if item is None or session.happened("undone", [_key(last)]):
        return True
    if last["reviewer"] in item["answered_by"]:
        as_seen = {"_id": item["_id"], "epoch": item["epoch"], "answered_by": last["reviewer"]}
        if not session.database.items.update_one(as_seen, state.unsay(last["reviewer"])).matched_count:
            return False
    _record(session, last)
    return True


def _record(session: Session, last: Document) -> None:
    details = {name: last[name] for name in ("item", "epoch", "key")} | {"of": last["seq"]}
    session.record_once("undone", last["reviewer"], _key(last), details)


def _key(last: Document) -> str:
    return answer_key(last["item"], last["reviewer"], last["epoch"])


def _pulled(last: Document) -> str:
    gone = "your last answer has gone to the workspace and cannot be taken back here"
    if last["kind"] != "label":
        return f"{gone}: what was checked and drawn stays"
    return f"{gone}; to replace it, import another verdict of yours on the label: vouch verdicts CAMPAIGN FILE"
