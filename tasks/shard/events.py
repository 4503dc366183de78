"""Events of a run while it goes on, for progress bars and logs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Listing:
    """The source is being listed."""

    keys: int
    """Keys seen so far."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan stands."""

    images: int
    """Images to go through: those of the source, and those that shards still to be processed were cut with, but which
    have changed or left since (a shard is processed whole)."""
    done: int
    """Of them, those in shards that are done already."""
    shards: int
    """Shards to process now."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Models are being loaded."""

    what: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Some more images of a shard are through; figures since the last such event.

    A shard that is tried again takes back what it reported: then figures are negative.
    """

    done: int
    failed: int
    accepted: int
    review: int
    known: int = 0
    """Of the images done, those whose content was labelled before, so that no model looked at them."""

    def plus(self, other: "Progress") -> "Progress":
        """Both together."""
        return Progress(
            self.done + other.done,
            self.failed + other.failed,
            self.accepted + other.accepted,
            self.review + other.review,
            self.known + other.known,
        )

    def taken_back(self) -> "Progress":
        """What takes this back."""
        return Progress(-self.done, -self.failed, -self.accepted, -self.review, -self.known)


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a cluster are others now."""

    ready: int
    """Those that have loaded their models."""
    waiting: int
    """Those that wait for a place, or load."""
    lost: int
    """Those that died, so far."""
    retired: int
    """Those that were given up since they differ or fail, so far."""


@dataclass(frozen=True, slots=True)
class Exporting:
    """The data set is being written."""

    images: int
    """Images written so far."""
    step: Literal["annotations", "images"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A file of labels, truth or verdicts, is being read."""

    done: int
    """Bytes, or rows, so far."""
    total: int
    """All of them."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """Labels are being compared with ground truth."""

    images: int
    """Images compared so far."""


@dataclass(frozen=True, slots=True)
class Routing:
    """A policy is being applied to labels that are there."""

    labels: int
    """Labels decided on so far."""


@dataclass(frozen=True, slots=True)
class Training:
    """A detector is being trained."""

    done: int
    """Batches that it learned from so far."""
    total: int
    """All of them; 0 where time decides."""
    loss: float
    """Of the last one."""


Event = Listing | Planned | Loading | Progress | Workers | Exporting | Reading | Comparing | Routing | Training
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing."""
