"""The plugin's operators: take, keep and give back items, answer them, the grid of crops.

All answer with the session's state, and report errors in one line.
"""

import logging
import os
import threading
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, get_args

import fiftyone.operators as foo

from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.session.grid import submit_grid, take_grid
from vouch_labels.review_ui.session.read_back import Choice
from vouch_labels.review_ui.session.session import ReviewSession
from vouch_labels.schemas.errors import VouchError

logger = logging.getLogger(__name__)

Answer = dict[str, Any]

_BROKEN: Final = "this failed; the log of the review says why (nothing that you submitted is lost)"

_LARGEST: Final = 200
_CROPS: Final = 48

_DEFAULT_BATCH: Final = 25
_lock: Final = threading.Lock()


class ReviewOperator(foo.Operator):  # type: ignore[misc] # fiftyone has no types
    """An operator whose result is {items, error or not, and what `run` adds}.

    review_ui/browser/src/api.js reads the result; FiftyOne shows errors to people who run it in another way.
    """

    NAME: str
    LABEL: str

    @property
    def config(self) -> foo.OperatorConfig:
        """How it is called; it is for our keys and buttons, not for the list of operators."""
        return foo.OperatorConfig(name=self.NAME, label=self.LABEL, unlisted=True)

    def run(self, session: ReviewSession, given: dict[str, Any]) -> Answer | None:
        """Do it.

        Args:
            session: The session.
            given: Parameters of the request.

        Returns:
            What to add to the answer.

        Raises:
            VouchError: In one line for the reviewer.
        """
        raise NotImplementedError

    def execute(self, ctx: foo.ExecutionContext) -> Answer:
        """Do it, and return the items of the session as well."""
        try:
            session = review_session()
        except VouchError as error:
            return self._failed(ctx, str(error))
        try:
            added = self.run(session, ctx.params)
        except VouchError as error:
            return {"items": session.items(), **self._failed(ctx, str(error))}
        except Exception:
            logger.exception("%s failed", self.NAME)
            return self._failed(ctx, _BROKEN)
        return {"items": session.items(), **(added or {})}

    def _failed(self, ctx: foo.ExecutionContext, message: str) -> Answer:
        ctx.ops.notify(message, variant="error")
        return {"error": message}


def item_of(given: dict[str, Any]) -> str:
    """The item that a request is about.

    Raises:
        VouchError: It names none.
    """
    item = given.get("item")
    if not isinstance(item, str):
        raise VouchError("open an item first")
    return item


def seconds_of(given: dict[str, Any]) -> float | None:
    """Time spent as the browser measured it; None where it did not."""
    seconds = given.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and seconds == seconds and seconds >= 0 else None


class _Answering(ReviewOperator):
    CHOICE: Choice

    def run(self, session: ReviewSession, given: dict[str, Any]) -> Answer | None:
        """Submit it."""
        session.submit(item_of(given), seconds_of(given), self.CHOICE)
        return None


class Submit(_Answering):
    """Answers as it is on the screen: correct if nothing was changed."""

    NAME, LABEL, CHOICE = "submit", "Submit as shown", "as_shown"


class Reject(_Answering):
    """Answers that there is no object."""

    NAME, LABEL, CHOICE = "reject", "Not an object", "not_an_object"


class BadBox(_Answering):
    """Answers that the box does not fit."""

    NAME, LABEL, CHOICE = "bad_box", "Bad box", "bad_box"


class WrongClass(ReviewOperator):
    """Answers that the object is of another class."""

    NAME, LABEL = "wrong_class", "Wrong class"

    def run(self, session: ReviewSession, given: dict[str, Any]) -> Answer | None:
        """Submit it with the class, where it is one of the campaign's."""
        session.submit(item_of(given), seconds_of(given), "wrong_class", class_of(session, given))
        return None


class Undo(ReviewOperator):
    """Takes the last answer back."""

    NAME, LABEL = "undo", "Undo the last answer"

    def run(self, session: ReviewSession, _given: dict[str, Any]) -> Answer | None:
        """The item is in the session again."""
        undone = session.undo()
        if undone is None:
            raise VouchError("there is no answer of yours to take back")
        return undone._asdict()


def class_of(session: ReviewSession, given: dict[str, Any]) -> str | None:
    """The right class that a request names; None: none of the campaign's.

    Raises:
        VouchError: It is not the campaign's.
    """
    name = given.get("class_name")
    if name is not None and name not in session.classes:
        raise VouchError(f"{name!r} is no class of this campaign; choose one of the list")
    return name


def review_session() -> ReviewSession:
    """The session of the reviewer whom this process serves.

    Raises:
        VouchError: The server was started by something else than `vouch review`, or the database is away.
    """
    with _lock:
        return _open()


@cache
def _open() -> ReviewSession:
    try:
        uri, queue_id, reviewer = (
            os.environ[name] for name in ("FIFTYONE_DATABASE_URI", "VOUCH_REVIEW_QUEUE", "VOUCH_REVIEW_REVIEWER")
        )
    except KeyError as error:
        raise VouchError(f"{error.args[0]} is not set; start this server by `vouch review`") from None
    return ReviewSession(Queue.open(uri, queue_id), queue_id, reviewer)


ANSWERING = (Submit, Reject, BadBox, WrongClass, Undo)


class ShowSession(ReviewOperator):
    """Returns the session's items and the campaign's classes."""

    NAME, LABEL = "session", "Show the session"

    def run(self, session: ReviewSession, _given: dict[str, Any]) -> Answer | None:
        """Bring the session up to date."""
        session.refresh()
        progress = session.progress()
        return {
            "classes": list(session.classes),
            "queue": session.queue_id,
            "lease_s": _lease_s(session),
            "open": progress.open,
            "minutes_left": progress.minutes_left,
        }


class TakeBatch(ReviewOperator):
    """Takes items until the session has a batch."""

    NAME, LABEL = "take_batch", "Take a batch"

    def run(self, session: ReviewSession, _given: dict[str, Any]) -> Answer | None:
        """Lease them."""
        before = len(session.items())
        taken = len(session.take(batch())) - before
        return {"taken": taken, "lease_s": _lease_s(session)}


class Skip(ReviewOperator):
    """Gives one item back undecided."""

    NAME, LABEL = "skip", "Skip"

    def run(self, session: ReviewSession, given: dict[str, Any]) -> Answer | None:
        """Somebody else is asked, or the same reviewer at the very end."""
        session.skip(item_of(given))
        return None


class GiveBack(ReviewOperator):
    """Returns all items."""

    NAME, LABEL = "give_back", "Give everything back"

    def run(self, session: ReviewSession, _given: dict[str, Any]) -> Answer | None:
        """Return them unanswered."""
        return {"returned": session.give_back()}


class Renew(ReviewOperator):
    """Keeps the leases while somebody works."""

    NAME, LABEL = "renew", "Keep my items"

    def run(self, session: ReviewSession, _given: dict[str, Any]) -> Answer | None:
        """Renew the leases; what was lost all the same leaves the session."""
        before = {one["item"] for one in session.items()}
        lease_s = _lease_s(session)
        lost = before - {one["item"] for one in session.refresh()}
        return {"lease_s": lease_s, "lost": len(lost)}


def _lease_s(session: ReviewSession) -> float:
    return (session.queue.renew(session.reviewer).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def batch() -> int:
    """How many items are taken at a time."""
    return int(os.environ.get("VOUCH_REVIEW_BATCH", _DEFAULT_BATCH))


HOLDING = (ShowSession, TakeBatch, Skip, GiveBack, Renew)


class GridTake(ReviewOperator):
    """Takes labels of one class for the grid."""

    NAME, LABEL = "grid_take", "Take a grid of crops"

    def run(self, session: ReviewSession, given: dict[str, Any]) -> Answer | None:
        """Take them; without a class, those of the class that comes next."""
        count = given.get("count", _CROPS)
        if not isinstance(count, int) or not 0 < count <= _LARGEST:
            raise VouchError(f"a grid has 1 to {_LARGEST} crops")
        class_name = given.get("class_name")
        if class_name is not None and not isinstance(class_name, str):
            raise VouchError("a grid is of one class")
        grid = take_grid(session, count, class_name, _names(given.get("leave")))
        return {"grid": [one["item"] for one in grid], "class_name": grid[0]["class_name"] if grid else None}


class GridSubmit(ReviewOperator):
    """Answers a whole grid."""

    NAME, LABEL = "grid_submit", "Submit the grid"

    def run(self, session: ReviewSession, given: dict[str, Any]) -> Answer | None:
        """Those picked out get the verdict that was chosen, the others are correct; `kept` are not answered."""
        shown, wrong = (_names(given.get(name)) for name in ("shown", "wrong"))
        verdict = given.get("verdict", "not_an_object")
        if verdict not in get_args(Choice) or verdict == "as_shown" or not set(wrong) <= set(shown):
            raise VouchError("a grid is answered by its items, those picked out, and what they are")
        kept = submit_grid(session, shown, wrong, seconds_of(given), verdict, class_of(session, given))
        return {"answered": len(shown) - len(kept), "kept": kept}


def _names(given: object) -> list[str]:
    return list(dict.fromkeys(name for name in given if isinstance(name, str))) if isinstance(given, list) else []


GRID = (GridTake, GridSubmit)
