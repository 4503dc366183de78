"""Compares what the plans ask with what the queue has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from review_ui.queue.asked import Asked, Task, Wanted
from review_ui.queue.connect import Document
from review_ui.queue.marks import UNPULLED
from review_ui.queue.session import Session
from tasks.reviews.resolve import Answers

_FIELDS = ("item", "key", "state", "kind", "asked", "answered_by", "wanted", "inputs")


class Pending(NamedTuple):
    """Answers that the workspace does not have yet."""

    items: frozenset[str]
    """What they are about."""
    seq: int
    """Number of the last event before."""


@dataclass
class Changes:
    """What has to change for the queue to ask what the plans do."""

    new: list[Task] = field(default_factory=list)
    """Not in the queue yet."""
    back: list[str] = field(default_factory=list)
    """Items that had left it."""
    again: list[str] = field(default_factory=list)
    """Items that were answered, and are open all the same: reviewers disagree."""
    gone: list[str] = field(default_factory=list)
    """Items that are not asked any more."""
    leased: int = 0
    """Of these, those on somebody's desk."""
    wanted: dict[int, list[str]] = field(default_factory=lambda: {1: [], 2: []})
    """How many are to answer -> items of which nobody has said anything and that had another number."""
    stale: list[Task] = field(default_factory=list)
    """Questions whose items show labels as other models made them: an id is one of image, class and box alone."""
    kept: int = 0
    """Items that stay as they are."""
    active: dict[str, list[str]] = field(default_factory=dict)
    """Key of an image -> items of the queue, new ones not among them, that are asked about it."""

    def let_go(self, names: Sequence[str]) -> None:
        """Ask items of the queue no more after all."""
        lost = frozenset(names)
        if lost:
            self.kept -= len(lost.difference(self.back, self.again))
            self.back = [name for name in self.back if name not in lost]
            self.again = [name for name in self.again if name not in lost]
            self.gone += names


def read_pending(session: Session) -> Pending:
    """Find answers that the workspace does not have yet; to be called before its verdicts are read.

    So an answer that is pulled meanwhile is known from one of the two.
    """
    queue = session.database.queues.find_one({"_id": session.queue}, {"seq": 1})
    return Pending(_unpulled(session), queue["seq"] if queue else 0)


def compare(session: Session, asked: Asked, answers: Answers, before: Pending, wanted: Wanted, inputs: str) -> Changes:
    """Compare.

    An item leaves when it was answered elsewhere or is not asked any more. One that was answered here by one of two
    stays until the other has.

    Args:
        session: The queue.
        asked: What the plans ask.
        answers: What the workspace knows of labels.
        before: What `read_pending` gave before the answers were read.
        wanted: How many people are asked a question.
        inputs: Names what the labels were made by.
    """
    changes = Changes()
    pending, seen = _pending_now(session, before), set()
    reviewers = dict(zip(answers.label_ids, answers.reviewers.tolist(), strict=True))
    for item in session.database.items.find({"queue": session.queue}, dict.fromkeys(_FIELDS, 1)):
        name = item["item"]
        seen.add(name)
        if name in asked.open and item.get("inputs") != inputs:
            changes.stale.append(asked.open[name])
        if item["state"] == "answered":
            if name in asked.open and name not in pending:
                changes.again.append(name)
                changes.active.setdefault(item["key"], []).append(name)
        elif name in asked.open or (name in asked.items and _waits(item, reviewers)):
            _keep(changes, item, wanted(name, item["kind"]))
        elif item["asked"]:
            changes.gone.append(name)
            changes.leased += item["state"] == "leased"
    changes.new += [task for name, task in asked.open.items() if name not in seen]
    return changes


def _keep(changes: Changes, item: Document, wanted: int) -> None:
    name = item["item"]
    changes.active.setdefault(item["key"], []).append(name)
    if item["asked"]:
        changes.kept += 1
    else:
        changes.back.append(name)
    if wanted != item["wanted"] and not item["answered_by"]:
        changes.wanted[wanted].append(name)


def _waits(item: Document, reviewers: dict[str, int]) -> bool:
    """Whether an item that the workspace has an answer to is to be answered all the same."""
    return bool(item["answered_by"]) and reviewers.get(item["item"], 0) < item["wanted"]


def _pending_now(session: Session, before: Pending) -> frozenset[str]:
    """Items with answers that the workspace may not have had when its answers were read."""
    since = {"queue": session.queue, "what": "submitted", "seq": {"$gt": before.seq}}
    return before.items | _unpulled(session) | {one["item"] for one in session.database.events.find(since, {"item": 1})}


def _unpulled(session: Session) -> frozenset[str]:
    waiting = {"queue": session.queue, "what": "submitted", "pulled": UNPULLED, "seq": {"$nin": session.undone()}}
    return frozenset(event["item"] for event in session.database.events.find(waiting, {"item": 1}))
