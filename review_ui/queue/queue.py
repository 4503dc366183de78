"""A reviewer's view of the queue: take, answer, skip, undo, and see how far it is."""

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from schemas.queue import Item, ItemImage, Kind, Progress, VerdictRow


class Queue:
    """The queue of one run; safe for use from many threads. Every method tells of a server that is away in one line.

    Raises:
        UserError: The database is away, refuses access, or was written by a newer version of Vouch.
    """

    @classmethod
    def open(cls, uri: str, queue_id: str) -> Self:
        """Connect to a queue that review_ui.queue.fill has filled; use it in a with block, or close it.

        Args:
            uri: mongodb:// address of the server; the database is FiftyOne's (FIFTYONE_DATABASE_NAME).
            queue_id: As FillOutcome.queue says.

        Raises:
            UserError: There is no such queue.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give connections back; leases stay until they run out."""
        raise NotImplementedError

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
        raise NotImplementedError

    def held(self, reviewer: str) -> list[Item]:
        """List what a reviewer holds, by place."""
        raise NotImplementedError

    def renew(self, reviewer: str) -> datetime:
        """Renew all leases of a reviewer, also one that ran out while nobody else took the item.

        Returns:
            When they run out, by the database's clock.
        """
        raise NotImplementedError

    def give_back(self, reviewer: str, items: Sequence[str] | None = None) -> int:
        """Return items unanswered; None: all that the reviewer holds. Returns how many there were."""
        raise NotImplementedError

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

        The same item and epoch again change nothing. An answer after the lease ran out counts as long as nobody else
        has the item.

        Args:
            reviewer: Who.
            item_id: What was answered.
            epoch: That of the item.
            rows: Verdicts: one about the label (or `checked` of the image), and one for every missed object.
            seconds: Time spent; None where it is unknown.
            simulated: A program answered from ground truth.

        Raises:
            LeaseLostError: The item is another's by now, or not asked any more; the rows are kept in the log.
            ValueError: The rows are no verdicts about this item.
        """
        raise NotImplementedError

    def skip(self, reviewer: str, item_id: str, epoch: int) -> None:
        """Return an item, and see it again only when nothing else is left; nothing happens if it is not held."""
        raise NotImplementedError

    def undo(self, reviewer: str) -> Item | None:
        """Take back the reviewer's last answer that stands and lease its item to him again; None without one."""
        raise NotImplementedError

    def progress(self, reviewer: str) -> Progress:
        """Count, as this reviewer may see it."""
        raise NotImplementedError

    def holds(self, reviewer: str, item_id: str) -> bool:
        """Whether the item is the reviewer's; also after the lease ran out, until it is given to somebody else."""
        raise NotImplementedError

    def log(self, reviewer: str, method: str, path: str, body: bytes, status: int) -> None:
        """Record a change request that the guard saw, whatever became of it."""
        raise NotImplementedError

    def classes(self) -> tuple[str, ...]:
        """The campaign's classes, in the order declared."""
        raise NotImplementedError

    def image(self, key: str) -> ItemImage | None:
        """An image of the queue with its labels as they stand; None for any other key."""
        raise NotImplementedError
