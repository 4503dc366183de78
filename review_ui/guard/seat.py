"""What the guard asks about the desk that it guards."""

from typing import Protocol


class Seat(Protocol):
    """A reviewer's place at a queue. Every method may wait for the database; call it from a thread."""

    def dataset_id(self) -> str:
        """Hex id of the desk's dataset."""
        ...

    def item_of(self, sample_id: str) -> str | None:
        """The item that a sample of the desk shows; None when the desk has no such sample."""
        ...

    def holds(self, item: str) -> bool:
        """Whether the reviewer holds the lease of an item now."""
        ...

    def has_image(self, key: str) -> bool:
        """Whether a key is an image of the queue."""
        ...

    def log(self, method: str, path: str, body: bytes, status: int) -> None:
        """Keep a change that was asked for, and what became of it."""
        ...
