"""The plugin's operators: take, keep and give back items, answer them, the grid of crops.

All answer with the session's state, and report errors in one line.
"""

import logging
import os
import threading
from collections.abc import Callable
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


Run = Callable[[ReviewSession, dict[str, Any]], Answer | None]
"""What an operator does with the parameters of the request; returns what to add to the answer.

Raises a VouchError with one line for the reviewer.
"""

OPERATORS: Final[list[type["ReviewOperator"]]] = []


class ReviewOperator(foo.Operator):  # type: ignore[misc] # fiftyone has no types
    """An operator whose result is {items, error or not, and what `run` adds}.

    review_ui/browser/src/api.js reads the result; FiftyOne shows errors to people who run it in another way.
    """

    NAME: str
    LABEL: str
    run: Run

    @property
    def config(self) -> foo.OperatorConfig:
        """How it is called; it is for our keys and buttons, not for the list of operators."""
        return foo.OperatorConfig(name=self.NAME, label=self.LABEL, unlisted=True)

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


def operator(label: str) -> Callable[[Run], Run]:
    """Make an operator of a function, by the function's name."""

    def register(run: Run) -> Run:
        parts = {"NAME": run.__name__, "LABEL": label, "run": staticmethod(run), "__doc__": run.__doc__}
        OPERATORS.append(type(run.__name__, (ReviewOperator,), parts))
        return run

    return register


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
    return ReviewSession(Queue.open(uri, queue_id), reviewer)


def item_of(given: dict[str, Any]) -> str:
    """The item that a request is about; a VouchError if it names none."""
    item = given.get("item")
    if not isinstance(item, str):
        raise VouchError("open an item first")
    return item


def seconds_of(given: dict[str, Any]) -> float | None:
    """Time spent as the browser measured it; None where it did not."""
    seconds = given.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and seconds == seconds and seconds >= 0 else None


def class_of(session: ReviewSession, given: dict[str, Any]) -> str | None:
    """The right class that a request names, None for none; a VouchError if it is not the campaign's."""
    name = given.get("class_name")
    if name is not None and name not in session.classes:
        raise VouchError(f"{name!r} is no class of this campaign; choose one of the list")
    return name


def batch() -> int:
    """How many items are taken at a time."""
    return int(os.environ.get("VOUCH_REVIEW_BATCH", _DEFAULT_BATCH))


@operator("Show the session")
def session(review: ReviewSession, _given: dict[str, Any]) -> Answer:
    """Bring the session up to date; returns the campaign's classes and what is left."""
    review.refresh()
    progress = review.progress()
    return {
        "classes": list(review.classes),
        "queue": review.queue.id,
        "lease_s": _lease_s(review),
        "open": progress.open,
        "answered_by_me": progress.answered_by_me,
        "elsewhere": progress.leased - progress.mine,
        "minutes_left": progress.minutes_left,
        "certified": progress.certified,
    }


@operator("Take a batch")
def take_batch(review: ReviewSession, _given: dict[str, Any]) -> Answer:
    """Take items until the session has a batch."""
    before = len(review.items())
    taken = len(review.take(batch())) - before
    return {"taken": taken, "lease_s": _lease_s(review)}


@operator("Submit as shown")
def submit(review: ReviewSession, given: dict[str, Any]) -> None:
    """Answer an item as it is on the screen: correct if nothing was changed."""
    review.submit(item_of(given), seconds_of(given), "as_shown")


@operator("Not an object")
def reject(review: ReviewSession, given: dict[str, Any]) -> None:
    """Answer that there is no object."""
    review.submit(item_of(given), seconds_of(given), "not_an_object")


@operator("Bad box")
def bad_box(review: ReviewSession, given: dict[str, Any]) -> None:
    """Answer that the box does not fit."""
    review.submit(item_of(given), seconds_of(given), "bad_box")


@operator("Wrong class")
def wrong_class(review: ReviewSession, given: dict[str, Any]) -> None:
    """Answer that the object is of another class, which is named where it is one of the campaign's."""
    review.submit(item_of(given), seconds_of(given), "wrong_class", class_of(review, given))


@operator("What the models say")
def hint(review: ReviewSession, given: dict[str, Any]) -> Answer:
    """Tell what the models say of an item, which nothing shows unasked."""
    item = item_of(given)
    return {"item": item, "hint": review.hint(item)}


@operator("Skip")
def skip(review: ReviewSession, given: dict[str, Any]) -> None:
    """Give an item back unanswered: another reviewer is asked, or the same one at the very end."""
    review.skip(item_of(given))


@operator("Undo the last answer")
def undo(review: ReviewSession, _given: dict[str, Any]) -> Answer:
    """Take the last answer back: its item is in the session again."""
    undone = review.undo()
    if undone is None:
        raise VouchError("there is no answer of yours to take back")
    return undone._asdict()


@operator("Give everything back")
def give_back(review: ReviewSession, _given: dict[str, Any]) -> Answer:
    """Return all items unanswered."""
    return {"returned": review.give_back()}


@operator("Keep my items")
def renew(review: ReviewSession, _given: dict[str, Any]) -> Answer:
    """Renew the leases while somebody works; what was lost all the same leaves the session."""
    before = {one["item"] for one in review.items()}
    lease_s = _lease_s(review)
    lost = before - {one["item"] for one in review.refresh()}
    return {"lease_s": lease_s, "lost": len(lost)}


@operator("Take a grid of crops")
def grid_take(review: ReviewSession, given: dict[str, Any]) -> Answer:
    """Take labels of one class for the grid; without a class, of the class that comes next."""
    count = given.get("count", _CROPS)
    if not isinstance(count, int) or not 0 < count <= _LARGEST:
        raise VouchError(f"a grid has 1 to {_LARGEST} crops")
    class_name = given.get("class_name")
    if class_name is not None and not isinstance(class_name, str):
        raise VouchError("a grid is of one class")
    grid = take_grid(review, count, class_name, _names(given.get("leave")))
    return {"grid": [one["item"] for one in grid], "class_name": grid[0]["class_name"] if grid else None}


@operator("Submit the grid")
def grid_submit(review: ReviewSession, given: dict[str, Any]) -> Answer:
    """Answer a grid: those picked get the verdict that was chosen, the others are correct; `kept` are not answered."""
    shown, wrong = (_names(given.get(name)) for name in ("shown", "wrong"))
    verdict = given.get("verdict", "not_an_object")
    if verdict not in get_args(Choice) or verdict == "as_shown" or not set(wrong) <= set(shown):
        raise VouchError("a grid is answered by its items, those picked out, and what they are")
    kept = submit_grid(review, shown, wrong, seconds_of(given), verdict, class_of(review, given))
    return {"answered": len(shown) - len(kept), "kept": kept}


def _lease_s(review: ReviewSession) -> float:
    return (review.queue.renew(review.reviewer).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def _names(given: object) -> list[str]:
    return list(dict.fromkeys(name for name in given if isinstance(name, str))) if isinstance(given, list) else []
