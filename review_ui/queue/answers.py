"""Stores answers: each once, on disk before it is acknowledged, late ones kept apart; undoes the last one.

Rows of verdicts are checked when an answer comes and completed when it is pulled. An answer that a pull has brought
into the workspace is not taken back: the mark `pulled` is one field, set on condition, so that of a pull and an undo
that race one wins. Change requests of browsers are kept: drafts can be found there whatever became of them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from bson import Binary
from pymongo import ASCENDING, DESCENDING, ReturnDocument

from vouch_labels.review_ui.queue import state
from vouch_labels.review_ui.queue.database import Document, Session
from vouch_labels.review_ui.queue.leases import answer_key
from vouch_labels.schemas.errors import LeaseLostError, VouchError
from vouch_labels.schemas.queue import VerdictRow
from vouch_labels.schemas.reviews import LABEL_VERDICTS, VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.boxes_masks import paired_box_iou
from vouch_labels.tasks.reviews.verdicts import mask_trouble, trouble

_LOOKS: Final = 10
"""At an item that others keep taking in between."""

ADDED: Final = ("reviewer", "seconds", "reviewed_at", "simulated")
"""Columns of a verdict that are the queue's."""
SAID: Final = tuple(name for name in VERDICTS.names if name not in ADDED)
"""The others."""
_NO_CORRECTION: Final = {
    # A mask can be mended though class and box are right.
    "correct": ("class_name", *BOX),
    "not_an_object": ("class_name", *BOX, "rle_counts"),
}
"""Columns in which a verdict corrects nothing."""

MOST_BYTES: Final = 15 << 20
"""Of a body that is kept; a document has at most 16 MiB."""

TAKEN: Final = "taken"
"""A pull has it, and may have written it: it can no longer be taken back, and the next pull brings it all the same."""
UNDONE: Final = "undone"
"""It was taken back, and no pull brings it. Any other value: the file of the workspace that it is in."""
UNPULLED: Final[dict[str, Any]] = {"$in": [None, TAKEN]}
"""Answers that the workspace may not have; null and no mark at all are the same."""


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


def answered(session: Session, reviewer: str, items: Sequence[str]) -> dict[str, Sequence[VerdictRow]]:
    """Read the last answers of a reviewer to items, as far as they stand.

    Args:
        session: The queue.
        reviewer: Who.
        items: Their ids.

    Returns:
        What was submitted, by item: the row about the item first.
    """
    keys = [session.key_of(name) for name in items]
    said = session.database.items.find({"_id": {"$in": keys}, "answered_by": reviewer}, {"item": 1})
    mine = {"queue": session.queue, "reviewer": reviewer, "item": {"$in": [one["item"] for one in said]}}
    undone = {event["of"] for event in session.database.events.find(mine | {"what": "undone"}, {"of": 1})}
    events = session.database.events.find(mine | {"what": "submitted"}).sort("seq", ASCENDING)
    return {event["item"]: event["verdicts"] for event in events if event["seq"] not in undone}


def taken_back(session: Session, reviewer: str, item_id: str) -> Sequence[VerdictRow]:
    """Read the verdicts that a reviewer took back last of an item.

    Args:
        session: The queue.
        reviewer: Who.
        item_id: Of the item.

    Returns:
        As they were submitted, the one about the item first; none if no answer was taken back.
    """
    mine = {"queue": session.queue, "what": "undone", "reviewer": reviewer, "item": item_id}
    last = session.database.events.find_one(mine, sort=[("seq", DESCENDING)])
    if last is None:
        return []
    event = session.database.events.find_one(mine | {"what": "submitted", "seq": last["of"]})
    said: Sequence[VerdictRow] = [] if event is None else event["verdicts"]
    return said


def verdict_rows(event: Document) -> list[Document]:
    """Make rows of schemas.reviews.VERDICTS of an answer; its time stands on the first, so that it counts once."""
    about = {"reviewer": event["reviewer"], "reviewed_at": event["at"], "simulated": event["simulated"]}
    return [
        row | about | {"seconds": None if place else event["seconds"]} for place, row in enumerate(event["verdicts"])
    ]


def verdict_table(events: Iterable[Document]) -> pa.Table:
    """Make the rows of schemas.reviews.VERDICTS of answers, in their order."""
    return pa.Table.from_pylist([row for event in events for row in verdict_rows(event)], schema=VERDICTS)


def checked_rows(rows: Sequence[VerdictRow], item: Document, classes: Sequence[str]) -> list[Document]:
    """Check the rows of an answer and give them all columns, the one about the item first.

    Args:
        rows: As they were submitted.
        item: What they answer.
        classes: Of the campaign.

    Raises:
        ValueError: They are no verdicts about this item.
    """
    said = [_row(row, item) for row in rows]
    about = [row for row in said if row["verdict"] != "missed"]
    if len(about) != 1:
        raise ValueError(
            f"an answer has one verdict about its item, and may have missed objects; this has {len(about)}"
        )
    if item["label_id"] is not None:
        _check_label(about[0], item)
    elif about[0]["verdict"] != "checked" or about[0]["class_name"] != item["class_name"]:
        raise ValueError("a question about an image is answered by `checked`, of the class that was looked for")
    for row in said:
        # The item's own class may have left the campaign while the item was on a desk.
        if row["class_name"] not in (None, item["class_name"], *classes):
            raise ValueError(f"{row['class_name']!r} is no class of the campaign")
        if row["rle_counts"] is not None and (wrong := mask_trouble(row["rle_counts"], item["height"], item["width"])):
            raise ValueError(wrong)
    stand_in = {"reviewer": "", "simulated": False}
    if wrong := trouble(pa.Table.from_pylist([row | stand_in for row in said], schema=VERDICTS)):
        raise ValueError(wrong)
    return [about[0], *(row for row in said if row["verdict"] == "missed")]


def edit_iou(item: Document, row: Document) -> float | None:
    """How far a corrected box agrees with the one that was asked about: IoU; None without a correction."""
    if item["box"] is None or row["x0"] is None:
        return None
    boxes = (np.array([sides], np.float32) for sides in (item["box"], [row[side] for side in BOX]))
    return float(paired_box_iou(*boxes)[0])


def _row(row: VerdictRow, item: Document) -> Document:
    unknown = sorted(set(row) - set(SAID))
    if unknown:
        raise ValueError(f"a verdict of the queue has no column {unknown[0]!r}")
    full: Document = {name: row.get(name) for name in SAID}
    if full["key"] not in (None, item["key"]) or full["label_id"] not in (None, item["label_id"]):
        raise ValueError("the verdict is about another label or image than its item")
    if full["verdict"] == "missed" and full["label_id"] is not None:
        raise ValueError("a missed object has no label")
    return full | {"key": item["key"]}


def _check_label(row: Document, item: Document) -> None:
    if row["verdict"] not in LABEL_VERDICTS or row["label_id"] is None:
        raise ValueError(f"a question about a label is answered by one of {', '.join(LABEL_VERDICTS)}")
    if row["verdict"] == "wrong_class" and row["class_name"] == item["class_name"]:
        raise ValueError(f"wrong_class, but the label is {item['class_name']!r} already")
    row.update(dict.fromkeys(_NO_CORRECTION.get(row["verdict"], ())))


def log_request(session: Session, reviewer: str, method: str, path: str, body: bytes, status: int) -> None:
    """Append a request; a body beyond `MOST_BYTES` is cut, and marked so.

    Args:
        session: The queue.
        reviewer: Who sent it.
        method: PATCH, POST ...
        path: Path with its query.
        body: As it came.
        status: HTTP status of the answer.
    """
    kept = body[:MOST_BYTES]
    text: object
    try:
        text = kept.decode()
    except UnicodeDecodeError:
        text = Binary(kept)
    entry: Document = {
        "queue": session.queue,
        "reviewer": reviewer,
        "method": method,
        "path": path,
        "body": text,
        "status": status,
        "cut": len(body) > MOST_BYTES,
    }
    # Stamped by the server: the one clock of everything that is logged.
    session.database.requests.insert_one(entry | {"at": session.database.now()})
