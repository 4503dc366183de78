"""What every format is given: a data set to write, image after image, with ids, splits and boxes settled."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from vouch_labels.schemas.campaign import ExportConfig
from vouch_labels.tasks.export.decide import SPLITS
from vouch_labels.tasks.labels.records import AnnotationFile, ExportImage, ExportLabel
from vouch_labels.tasks.store.store import Store

ALL: Final = "all"
"""Every image, whatever its split."""


@dataclass(frozen=True)
class Target:
    """A data set that is being written."""

    store: Store
    prefix: str
    """Key of its folder, without a slash at its end."""
    class_names: tuple[str, ...]
    """In the order of their numbers."""
    config: ExportConfig
    """One of `ExportConfig.data_sets`: nothing that has a default is left empty."""
    created: datetime
    version: str
    """Names what the labels depend on."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have a share of the images."""
        shares = self.config.splits
        return () if shares is None else tuple(name for name in SPLITS if getattr(shares, name) > 0)


class WrittenLabel(NamedTuple):
    """A label that is in the data set."""

    label: ExportLabel
    number: int
    """Counts from 1 over all images: pycocotools takes 0 for unmatched."""
    box: tuple[float, float, float, float]
    """xyxy in pixels of the upright image, right and bottom exclusive, rounded to 1/100; inside the image."""
    crowd: bool
    """A region to be ignored; never for a format that cannot say so."""


class WrittenImage(NamedTuple):
    """An image that is in the data set."""

    image: ExportImage
    number: int
    """Counts from 1."""
    file_name: str
    """Relative to the data set's folder, to the source's where the images stay there."""
    split: str | None
    """None: there are no splits."""
    labels: Sequence[WrittenLabel]
    not_exhaustive: tuple[str, ...]
    """Classes of which it may show objects without a plain label, in the order of their numbers."""
    data: bytes = b""
    """Content of the image's file, for formats that hold it."""


class Format(Protocol):
    """Writes one data set: it is whole when its context ends, and nobody takes it for whole before."""

    def add(self, image: WrittenImage) -> None:
        """Append an image.

        Raises:
            StoreError: The store cannot be written to.
        """

    def files(self, split: str) -> list[AnnotationFile]:
        """The annotation files, or the folder of them, of a split or of `ALL`."""
