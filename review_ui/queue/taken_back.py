"""Finds what an answer said that was taken back."""

from collections.abc import Sequence

from pymongo import DESCENDING

from review_ui.queue.session import Session
from schemas.queue import VerdictRow


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
