"""The review queue as a reviewer sees it: take, answer, skip, undo, and a status that does not break blindness."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from statistics import median
from types import TracebackType
from typing import Final, Self, get_args

from pymongo import DESCENDING

from vouch_labels.review_ui.queue import answers, leases
from vouch_labels.review_ui.queue.answers import UNPULLED, answered, log_request, taken_back
from vouch_labels.review_ui.queue.database import Document, Session, connect, open_session, told
from vouch_labels.review_ui.queue.items import items_of
from vouch_labels.schemas.queue import (
    Item,
    Kind,
    Left,
    Progress,
    PurposeCounts,
    QueueStatus,
    ReviewerProgress,
    VerdictRow,
)

ENOUGH: Final = 10
"""Answers of a kind from which on a reviewer's own speed says more than the plan."""
LATEST: Final = 200
"""Answers that a reviewer's speed is taken from."""


class Queue:
    """The queue of one run; safe for use from many threads. Every method tells of a server that is away in one line.

    Raises:
        UserError: The database is away, refuses access, or was written by a newer version of Vouch.
    """

    def __init__(self, session: Session) -> None:
        """Look at a queue that is open; `open` makes one."""
        self._session = session

    @classmethod
    def open(cls, uri: str, queue_id: str) -> Self:
        """Connect to a queue that review_ui.queue.fill has filled; use it in a with block, or close it.

        Args:
            uri: mongodb:// address of the server; the database is FiftyOne's (FIFTYONE_DATABASE_NAME).
            queue_id: As FillOutcome.queue says.

        Raises:
            UserError: There is no such queue.
        """
        database = connect(uri)
        try:
            session = open_session(database, queue_id)
            with told(database.where):
                leases.complete(session)
                answers.complete_undone(session)
        except BaseException:
            database.close()
            raise
        return cls(session)

    def close(self) -> None:
        """Give connections back; leases stay until they run out."""
        self._session.database.close()

    def __enter__(self) -> Self:
        """Nothing to do: the queue is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def take(self, reviewer: str, count: int, *, kind: Kind | None = None, class_name: str | None = None) -> list[Item]:
        """Lease items until the reviewer holds `count` of those asked for, and renew the leases held.

        Each is leased atomically, in the order of `place`; never one that this reviewer has answered, and one that he
        has skipped only when nothing else is left.

        Args:
            reviewer: Who.
            count: How many to hold; those held already count.
            kind: Only of this kind.
            class_name: Only of this class; "" asks for questions about every class.

        Returns:
            All items that the reviewer holds of those asked for, those held before included, by place.
        """
        with self._told():
            found = leases.take(self._session, reviewer, count, kind, class_name)
            return items_of(self._session, found, reviewer)

    def held(self, reviewer: str) -> list[Item]:
        """List what a reviewer holds, by place."""
        with self._told():
            return items_of(self._session, leases.held(self._session, reviewer), reviewer)

    def renew(self, reviewer: str) -> datetime:
        """Renew all leases of a reviewer, also one that ran out while nobody else took the item.

        Returns:
            When they run out, by the database's clock.
        """
        with self._told():
            return leases.renew(self._session, reviewer)

    def give_back(self, reviewer: str, items: Sequence[str] | None = None) -> int:
        """Return items unanswered; None: all that the reviewer holds. Returns how many there were."""
        with self._told():
            return leases.give_back(self._session, reviewer, items)

    def submit(
        self,
        reviewer: str,
        item_id: str,
        epoch: int,
        rows: Sequence[VerdictRow],
        seconds: float | None,
        *,
        simulated: bool = False,
    ) -> None:
        """Record an answer; when this returns, it is on the server's disk.

        The same answer to the same item and epoch again changes nothing. An answer after the lease ran out counts as
        long as nobody else has the item.

        Args:
            reviewer: Who.
            item_id: What was answered.
            epoch: That of the item.
            rows: Verdicts: one about the label (or `checked` of the image), and one for every missed object.
            seconds: Time spent; None where it is unknown.
            simulated: A program answered from ground truth.

        Raises:
            LeaseLostError: The item is another's by now, not asked any more, or was answered otherwise at this epoch;
                the rows are kept in the log.
            ValueError: The rows are no verdicts about this item.
        """
        with self._told():
            answers.submit(self._session, reviewer, item_id, epoch, rows, seconds, simulated)

    def skip(self, reviewer: str, item_id: str, epoch: int) -> None:
        """Return an item, and see it again only when nothing else is left; nothing happens if it is not held."""
        with self._told():
            answers.skip(self._session, reviewer, item_id, epoch)

    def undo(self, reviewer: str) -> Item | None:
        """Take back the reviewer's last answer that stands and lease its item to him again; None without one.

        Raises:
            VouchError: A pull has the answer, which stands; or it was taken back, but the item is another's by now.
        """
        with self._told():
            item = answers.undo(self._session, reviewer)
            return None if item is None else items_of(self._session, [item], reviewer)[0]

    def taken_back(self, reviewer: str, item_id: str) -> Sequence[VerdictRow]:
        """Tell what the reviewer's answer to an item said that was taken back last; nothing where none was."""
        with self._told():
            return taken_back(self._session, reviewer, item_id)

    def answered(self, reviewer: str, items: Sequence[str]) -> dict[str, Sequence[VerdictRow]]:
        """Tell which of these items have an answer of the reviewer's that stands, and what it says."""
        with self._told():
            return answered(self._session, reviewer, items)

    def progress(self, reviewer: str) -> Progress:
        """Count, as this reviewer may see it."""
        with self._told():
            return progress(self._session, reviewer)

    def left_for(self, reviewers: Sequence[str]) -> Left:
        """Count what is left for these reviewers."""
        with self._told():
            return left_for(self._session, reviewers)

    def holds(self, reviewer: str, item_id: str) -> bool:
        """Whether the item is the reviewer's; also after the lease ran out, until it is given to somebody else."""
        mine = {"_id": self._session.key_of(item_id), "leases.reviewer": reviewer}
        with self._told():
            return self._session.database.items.find_one(mine, {"_id": 1}) is not None

    def log(self, reviewer: str, method: str, path: str, body: bytes, status: int) -> None:
        """Record a change request that the guard saw, whatever became of it."""
        with self._told():
            log_request(self._session, reviewer, method, path, body, status)

    def classes(self) -> tuple[str, ...]:
        """The campaign's classes, in the order declared."""
        return self._session.classes

    def has_image(self, key: str) -> bool:
        """Whether a key is that of an image of the queue."""
        with self._told():
            return self._session.database.images.find_one({"_id": self._session.key_of(key)}, {"_id": 1}) is not None

    def _told(self) -> AbstractContextManager[None]:
        return told(self._session.database.where)


def progress(session: Session, reviewer: str) -> Progress:
    """Count, see schemas.queue.Progress."""
    groups = _groups(session, reviewer)
    open_ = [group for group in groups if group["state"] == "open" and not group["said"] and not group["mine"]]
    mine = [group for group in groups if group["mine"]]
    own = _own_seconds(session, reviewer)
    every = [seconds for values in own.values() for seconds in values]
    twice, agreement = _agreement(session)
    mine_answered = _count_own(session, reviewer)
    return Progress(
        open=_total(open_),
        leased=sum(group["count"] for group in groups if group["held"]),
        answered=_total([group for group in groups if group["state"] == "answered"]),
        mine=_total(mine),
        answered_by_me=mine_answered,
        by_class=_by(open_, "class_name"),
        by_kind={kind: count for kind in get_args(Kind) if (count := _by(open_, "kind").get(kind))},
        minutes_left=sum(_seconds(group, own) for group in [*open_, *mine]) / 60,
        seconds_each=median(every) if every else None,
        agreement=agreement,
        twice=twice,
    )


def left_for(session: Session, reviewers: Sequence[str]) -> Left:
    """Count, see schemas.queue.Left."""
    count = session.database.items.count_documents
    said = {"$all": list(reviewers)}
    asked = {"queue": session.queue, "asked": True}
    second = count(asked | {"state": "open", "answered_by": said})
    return Left(items=count(asked | {"state": {"$in": ["open", "leased"]}}) - second, second=second)


def queue_status(session: Session) -> QueueStatus:
    """Count for who runs the queue, split by purpose: nothing for the eyes of reviewers."""
    purposes: dict[str, Counter[str]] = defaultdict(Counter)
    groups = _groups(session, "")
    for group in groups:
        purposes[group["purpose"]][group["state"]] += group["count"]
    left = [group for group in groups if group["state"] in ("open", "leased")]
    own = _own_seconds(session)
    undone = session.undone()
    twice, agreement = _agreement(session)
    submitted = {"queue": session.queue, "what": "submitted", "seq": {"$nin": undone}}
    events = session.database.events
    edited, edit_iou = _edits(session, submitted)
    return QueueStatus(
        queue=session.queue,
        run=session.run,
        purposes={purpose: PurposeCounts(**counts) for purpose, counts in sorted(purposes.items())},
        reviewers=_reviewers(session, submitted),
        twice=twice,
        agreement=agreement,
        edited=edited,
        edit_iou=edit_iou,
        minutes_left=sum(_seconds(group, own) for group in left) / 60,
        own_pace=any(len(own.get(group["kind"], [])) >= ENOUGH for group in left),
        unpulled=events.count_documents(submitted | {"pulled": UNPULLED}),
        late=events.count_documents({"queue": session.queue, "what": "late"}),
    )


def _groups(session: Session, reviewer: str) -> list[Document]:
    """Items by all that is counted, with how many and their seconds."""
    who = {"$literal": reviewer}
    fields = {
        **{name: f"${name}" for name in ("state", "purpose", "kind", "class_name")},
        "held": {"$gt": [{"$size": "$leases"}, 0]},
        "mine": {"$in": [who, "$leases.reviewer"]},
        "said": {"$in": [who, "$answered_by"]},
    }
    found = session.database.items.aggregate(
        [
            {"$match": {"queue": session.queue}},
            {"$group": {"_id": fields, "count": {"$sum": 1}, "seconds": {"$sum": "$seconds"}}},
        ]
    )
    return [group["_id"] | {"count": group["count"], "seconds": group["seconds"]} for group in found]


def _own_seconds(session: Session, reviewer: str | None = None) -> dict[str, list[float]]:
    """Kind -> seconds of the reviewer's latest answers, or of everybody's."""
    wanted = {"queue": session.queue, "what": "submitted"} | ({} if reviewer is None else {"reviewer": reviewer})
    latest = session.database.events.find(wanted, {"kind": 1, "seconds": 1}).sort("seq", DESCENDING).limit(LATEST)
    found: dict[str, list[float]] = defaultdict(list)
    for event in latest:
        if event["seconds"] is not None:
            found[event["kind"]].append(event["seconds"])
    return found


def _seconds(group: Document, own: dict[str, list[float]]) -> float:
    times = own.get(group["kind"], [])
    expected: float = group["count"] * median(times) if len(times) >= ENOUGH else group["seconds"]
    return expected


def _count_own(session: Session, reviewer: str) -> int:
    count = session.database.events.count_documents
    said, undone = ({"queue": session.queue, "what": what, "reviewer": reviewer} for what in ("submitted", "undone"))
    return count(said) - count(undone)


def _agreement(session: Session) -> tuple[int, float | None]:
    """Items that two people answered, and the share of them on which all gave the same verdict and the same class."""
    said: dict[str, dict[str, tuple[str, str | None]]] = defaultdict(dict)
    wanted = {"queue": session.queue, "what": "submitted", "twice": True, "seq": {"$nin": session.undone()}}
    fields = {"item": 1, "reviewer": 1, "verdict": 1, "verdicts.class_name": 1}
    for event in session.database.events.find(wanted, fields).sort("seq"):
        # The first is the one about the item.
        said[event["item"]][event["reviewer"]] = event["verdict"], event["verdicts"][0]["class_name"]
    both = [set(answers.values()) for answers in said.values() if len(answers) > 1]
    return len(both), sum(len(answers) == 1 for answers in both) / len(both) if both else None


def _edits(session: Session, submitted: Document) -> tuple[int, float | None]:
    """Boxes that answers corrected, and the median IoU of those asked about with what became of them."""
    edited = session.database.events.find(submitted | {"box_iou": {"$ne": None}}, {"box_iou": 1})
    ious = [event["box_iou"] for event in edited]
    return len(ious), median(ious) if ious else None


def _reviewers(session: Session, submitted: Document) -> dict[str, ReviewerProgress]:
    grouped = session.database.events.aggregate(
        [
            {"$match": submitted},
            {"$group": {"_id": "$reviewer", "answered": {"$sum": 1}, "seconds": {"$sum": "$seconds"}}},
        ]
    )
    answered = {group["_id"]: group for group in grouped}
    leased = session.database.items.aggregate(
        [
            {"$match": {"queue": session.queue, "leases.0": {"$exists": True}}},
            {"$unwind": "$leases"},
            {"$group": {"_id": "$leases.reviewer", "mine": {"$sum": 1}}},
        ]
    )
    mine = {group["_id"]: group["mine"] for group in leased}
    return {
        name: ReviewerProgress(
            answered=answered[name]["answered"] if name in answered else 0,
            mine=mine.get(name, 0),
            seconds=answered[name]["seconds"] if name in answered else 0.0,
        )
        for name in sorted(answered.keys() | mine.keys())
    }


def _by(groups: list[Document], name: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for group in groups:
        # MongoDB leaves out of a group what is null.
        found[group.get(name) or ""] += group["count"]
    return dict(sorted(found.items()))


def _total(groups: list[Document]) -> int:
    return sum(group["count"] for group in groups)
