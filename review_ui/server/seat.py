"""Tells the guard of the desk that it guards."""

from review_ui.desk.desk import Desk


class DeskSeat:
    """A reviewer's place at a queue; safe for use from many threads."""

    def __init__(self, desk: Desk) -> None:
        """Take the desk that this process shows."""
        self._desk = desk

    def dataset_id(self) -> str:
        """Hex id of the desk's dataset."""
        return self._desk.dataset_id

    def item_of(self, sample_id: str) -> str | None:
        """The item that a sample of the desk shows; None when the desk has no such sample."""
        return self._desk.item_of_sample(sample_id)

    def holds(self, item: str) -> bool:
        """Whether the reviewer holds the lease of an item now."""
        return self._desk.queue.holds(self._desk.reviewer, item)

    def has_image(self, key: str) -> bool:
        """Whether a key is an image of the queue."""
        return self._desk.queue.has_image(key)

    def log(self, method: str, path: str, body: bytes, status: int) -> None:
        """Keep a change that was asked for, and what became of it."""
        self._desk.queue.log(self._desk.reviewer, method, path, body, status)
