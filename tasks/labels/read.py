"""Streams the labels of a run, image by image: as objects, as arrays with the signals asked for, with policy decisions.

Only markers of the present plan under the present settings count. Decisions of the active policy and sizes of a few
images are looked up on demand.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.tables import BOX, DECISIONS, STAGES
from vouch_labels.tasks.arrow import boxes_of, flags_of, flat, numbers, rows_of_keys
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.labels.scan import LABEL_TABLES, THREADS, Shard, scan, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.store import Store, map_ordered

_SIZE_COLUMNS: Final = ("key", "width", "height")
_EXPORTED: Final = (
    "label_id", "class_name", *BOX, "rle_counts", "mask_area", "detector_score", "p_correct", "decision", "policy"
)  # fmt: skip
"""Columns that an ExportLabel is made of, in the order of its fields."""
_DECISION_COLUMNS: Final = ("label_id", "decision")

Accepts = Callable[[pa.ChunkedArray], NDArray[np.bool_]]
"""Ids of n labels -> (n,) whether the active policy accepts them; not those that the run does not have."""


def _is_signal(field: pa.Field) -> bool:
    number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    return number and field.name.removeprefix("mask_") not in BOX


SIGNAL_STAGES: Final[dict[str, str]] = {
    field.name: stage for stage in LABEL_TABLES for field in STAGES[stage] if _is_signal(field)
}
"""Numeric column that says something of a label -> stage whose table has it."""


class LabelArrays(NamedTuple):
    """The labels of one image."""

    key: str
    """Key relative to the source."""
    width: int
    """Pixels of the EXIF-oriented original."""
    height: int
    """Pixels of the EXIF-oriented original."""
    class_name: list[str]
    """N class names."""
    xyxy: NDArray[np.float32]
    """(N, 4) pixels of the EXIF-oriented original, right and bottom exclusive."""
    accepted: NDArray[np.bool_]
    """(N,) whether the policy accepted it."""
    rle_counts: list[bytes]
    """N compressed COCO RLEs of the image's size."""
    signals: dict[str, NDArray[np.float32]]
    """(N,) each, NaN where missing."""

    def with_names(self, names: Mapping[str, str]) -> "LabelArrays":
        """The same with the present names of classes; names as in `Current.names`."""
        return self._replace(class_name=[names.get(name, name) for name in self.class_name]) if names else self


def label_arrays(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, signals: Sequence[str]
) -> Iterator[LabelArrays]:
    """Yield every image that is done, with its labels and signals (keys of SIGNAL_STAGES); a shard is held at a time.

    The order is that of `labelled_images`.

    Raises:
        StoreError: A table is missing or damaged.
    """
    columns = ["key", "class_name", *BOX, "rle_counts", "decision", *signals]
    found = shards(workspace, run, ledger, fingerprint)
    tables = map_ordered(lambda shard: (shard.images(_SIZE_COLUMNS), shard.labels(columns)), found, THREADS)
    for images, labels in tables:
        names, counts = labels["class_name"].to_pylist(), labels["rle_counts"].to_pylist()
        boxes, accepted = boxes_of(labels), numbers(pc.equal(labels["decision"], "accept"), np.bool_)
        values = {name: numbers(labels[name], np.float32) for name in signals}
        for image, rows in _by_image(images, labels):
            yield LabelArrays(
                **image,
                class_name=names[rows],
                xyxy=boxes[rows],
                accepted=accepted[rows],
                rle_counts=counts[rows],
                signals={name: column[rows] for name, column in values.items()},
            )


def labelled_images(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, keys: pa.Array | None = None
) -> Iterator[ExportImage]:
    """Yield every image that is done, with its labels, in constant memory.

    Images come by plan generation and then by key, each from the shard that holds it now; images that left the
    source, failed, or belong to unfinished shards are left out. Labels come in the order of the tables.

    Raises:
        StoreError: A table is missing or damaged.
    """
    sought = None if keys is None else {"key": keys}

    def read(shard: Shard) -> tuple[pa.Table, pa.Table] | None:
        images = shard.images([*_SIZE_COLUMNS, "sha256", "orientation"], sought)
        return (images, shard.labels(["key", *_EXPORTED], sought)) if images.num_rows else None

    for tables in map_ordered(read, shards(workspace, run, ledger, fingerprint), THREADS):
        if tables is not None:
            images, table = tables
            columns = zip(*(table[name].to_pylist() for name in _EXPORTED), strict=True)
            labels = [
                ExportLabel(label_id, name, (x0, y0, x1, y1), *others)
                for label_id, name, x0, y0, x1, y1, *others in columns
            ]
            for image, rows in _by_image(images, table):
                yield ExportImage(**image, labels=labels[rows])


def _by_image(images: pa.Table, labels: pa.Table) -> Iterator[tuple[dict[str, Any], slice]]:
    """Yield each image with the rows of its labels, which stand together."""
    rows = rows_of_keys(labels)
    for image in images.to_pylist():
        yield image, rows.get(image["key"], slice(0, 0))


class Decisions:
    """The present decisions of a run, read from the tables of its router when first asked for, and kept."""

    def __init__(self, workspace: Store, run: str) -> None:
        """Read nothing yet; the run need not have been run."""
        self._workspace, self._run = workspace, run

    def accepts(self, label_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Say of labels whether they are accepted, see `Accepts`.

        Raises:
            StoreError: A table is missing or damaged.
        """
        ids, accepted = self._read
        return flags_of(label_ids, ids, accepted)

    @cached_property
    def _read(self) -> tuple[pa.StringArray, NDArray[np.bool_]]:
        tables = [DECISIONS.empty_table().select(_DECISION_COLUMNS)]
        current = read_current(self._workspace, self._run)
        if current is not None:
            with Ledger.load(self._workspace, self._run) as ledger:
                tables += scan(self._workspace, self._run, ledger, current.fingerprint, _DECISION_COLUMNS, gone=True)
        # Latest first: of an image that several shards had, the last one counts.
        table = pa.concat_tables(tables[::-1])
        return flat(table["label_id"]), numbers(pc.equal(table["decision"], "accept"), np.bool_)


def image_sizes(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, keys: Collection[str] | None = None
) -> dict[str, tuple[int, int]]:
    """Look up the width and height of images, pixels of the EXIF-oriented original, by their keys (None: all).

    Images that the run did not label are left out; without keys nothing is read.

    Raises:
        StoreError: A table is missing or damaged.
    """
    if keys is not None and not keys:
        return {}
    sought = None if keys is None else {"key": pa.array(sorted(keys), pa.string())}
    found = shards(workspace, run, ledger, fingerprint)
    tables = map_ordered(lambda shard: shard.images(_SIZE_COLUMNS, sought), found, THREADS)
    return {row["key"]: (row["width"], row["height"]) for table in tables for row in table.to_pylist()}
