"""A reviewer's view of the queue: take, answer, skip, undo, and see how far it is."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Self

from review_ui.queue import answer, lease, undo
from review_ui.queue.answered import answered
from review_ui.queue.connect import connect, told
from review_ui.queue.progress import left_for, progress
from review_ui.queue.requests import log_request
from review_ui.queue.session import Session, open_session
from review_ui.queue.standing import items_of
from review_ui.queue.taken_back import taken_back
from schemas.queue import Item, Kind, Left, Progress, VerdictRow


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
                lease.complete(session)
                undo.complete_undone(session)
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
            found = lease.take(self._session, reviewer, count, kind, class_name)
            return items_of(self._session, found, reviewer)

    def held(self, reviewer: str) -> list[Item]:
        """List what a reviewer holds, by place."""
        with self._told():
            return items_of(self._session, lease.held(self._session, reviewer), reviewer)

    def renew(self, reviewer: str) -> datetime:
        """Renew all leases of a reviewer, also one that ran out while nobody else took the item.

        Returns:
            When they run out, by the database's clock.
        """
        with self._told():
            return lease.renew(self._session, reviewer)

    def give_back(self, reviewer: str, items: Sequence[str] | None = None) -> int:
        """Return items unanswered; None: all that the reviewer holds. Returns how many there were."""
        with self._told():
            return lease.give_back(self._session, reviewer, items)

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
            answer.submit(self._session, reviewer, item_id, epoch, rows, seconds, simulated)

    def skip(self, reviewer: str, item_id: str, epoch: int) -> None:
        """Return an item, and see it again only when nothing else is left; nothing happens if it is not held."""
        with self._told():
            answer.skip(self._session, reviewer, item_id, epoch)

    def undo(self, reviewer: str) -> Item | None:
        """Take back the reviewer's last answer that stands and lease its item to him again; None without one.

        Raises:
            VouchError: A pull has the answer, which stands; or it was taken back, but the item is another's by now.
        """
        with self._told():
            item = undo.undo(self._session, reviewer)
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
