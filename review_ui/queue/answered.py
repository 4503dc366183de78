"""Finds which answers of a reviewer stand."""

from collections.abc import Sequence

from pymongo import ASCENDING

from review_ui.queue.session import Session
from schemas.queue import VerdictRow


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
