"""Operators that take items, keep them, and give them back."""

from datetime import UTC, datetime
from typing import Any

from review_ui.desk.desk import Desk
from review_ui.plugin.operator import Answer, ReviewOperator, item_of
from review_ui.plugin.seat import batch


class ShowDesk(ReviewOperator):
    """Tells what is on the desk, and the campaign's classes."""

    NAME, LABEL = "desk", "Look at the desk"

    def run(self, at: Desk, _given: dict[str, Any]) -> Answer | None:
        """Bring the desk up to date."""
        at.refresh()
        progress = at.progress()
        return {
            "classes": list(at.classes),
            "queue": at.queue_id,
            "lease_s": _lease_s(at),
            "open": progress.open,
            "minutes_left": progress.minutes_left,
        }


class TakeBatch(ReviewOperator):
    """Takes items until a batch is on the desk."""

    NAME, LABEL = "take_batch", "Take a batch"

    def run(self, at: Desk, _given: dict[str, Any]) -> Answer | None:
        """Lease them."""
        before = len(at.cards())
        taken = len(at.take(batch())) - before
        return {"taken": taken, "lease_s": _lease_s(at)}


class Skip(ReviewOperator):
    """Gives one item back undecided."""

    NAME, LABEL = "skip", "Skip"

    def run(self, at: Desk, given: dict[str, Any]) -> Answer | None:
        """Somebody else is asked, or the same reviewer at the very end."""
        at.skip(item_of(given))
        return None


class GiveBack(ReviewOperator):
    """Returns all items."""

    NAME, LABEL = "give_back", "Give everything back"

    def run(self, at: Desk, _given: dict[str, Any]) -> Answer | None:
        """Return them unanswered."""
        return {"returned": at.give_back()}


class Renew(ReviewOperator):
    """Keeps the leases while somebody works."""

    NAME, LABEL = "renew", "Keep my items"

    def run(self, at: Desk, _given: dict[str, Any]) -> Answer | None:
        """Renew the leases; what was lost all the same leaves the desk."""
        before = {card["item"] for card in at.cards()}
        lease_s = _lease_s(at)
        lost = before - {card["item"] for card in at.refresh()}
        return {"lease_s": lease_s, "lost": len(lost)}


def _lease_s(at: Desk) -> float:
    return (at.queue.renew(at.reviewer).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


HOLDING = (ShowDesk, TakeBatch, Skip, GiveBack, Renew)
