"""Streams the labels of a run, image by image: as objects, as arrays with the signals asked for, with policy decisions.

Only markers of the present plan under the present settings count. Decisions of the active policy and sizes of a few
images are looked up when somebody asks.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.records import Marker
from vouch_labels.schemas.tables import BOX, DECISIONS, STAGES
from vouch_labels.tasks.arrow import boxes_of, flags_of, flat, numbers
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import read_current, read_marker, read_part, shards_done
from vouch_labels.tasks.store.store import Store, map_ordered

THREADS: Final = 4

_LABEL_STAGES: Final = ("detect", "segment", "score", "route")

_DETECT = ["label_id", "key", "class_name", "x0", "y0", "x1", "y1", "detector_score"]
_ROUTE = ["p_correct", "decision", "policy"]

MARKER_THREADS = 8

Accepts = Callable[[pa.ChunkedArray], NDArray[np.bool_]]
"""Ids of n labels -> (n,) whether the policy in force accepts them; not those that the run does not have."""

_DECISION_COLUMNS: Final = ["label_id", "decision"]

_SIZE_COLUMNS = ["key", "outcome", "width", "height"]


def _is_signal(field: pa.Field) -> bool:
    number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    return number and field.name.removeprefix("mask_") not in BOX


SIGNAL_STAGES: Final[dict[str, str]] = {
    field.name: stage for stage in _LABEL_STAGES for field in STAGES[stage] if _is_signal(field)
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


def label_arrays(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, signals: Sequence[str]
) -> Iterator[LabelArrays]:
    """Yield every image that is done, with its labels, in the order of `labelled_images`; a shard is held at a time.

    Args:
        workspace: The workspace.
        run: Name of the run.
        ledger: The run's ledger.
        fingerprint: Settings whose markers count.
        signals: Keys of SIGNAL_STAGES.

    Raises:
        StoreError: A table is missing or damaged.
    """
    markers = current_markers(workspace, run, ledger, fingerprint)
    shards = map_ordered(lambda marker: (marker, _array_tables(workspace, marker, signals)), markers, THREADS)
    for marker, tables in shards:
        yield from _arrays_of_shard(tables, ledger.keys_of(marker.shard), signals)


def _array_tables(workspace: Store, marker: Marker, signals: Sequence[str]) -> dict[str, pa.Table]:
    columns = {
        "images": ["key", "outcome", "width", "height"],
        "detect": ["key", "class_name", *BOX],
        "segment": ["rle_counts"],
        "score": [],
        "route": ["decision"],
    }
    for name in signals:
        columns[SIGNAL_STAGES[name]].append(name)
    return {
        stage: read_part(workspace, marker.parts[stage], stage, list(dict.fromkeys(names)))
        for stage, names in columns.items()
        if names
    }


def _arrays_of_shard(tables: dict[str, pa.Table], live: set[str], signals: Sequence[str]) -> Iterator[LabelArrays]:
    detect = tables["detect"]
    names, counts = detect["class_name"].to_pylist(), tables["segment"]["rle_counts"].to_pylist()
    boxes = boxes_of(detect)
    accepted = np.array([decision == "accept" for decision in tables["route"]["decision"].to_pylist()], np.bool_)
    values = {name: numbers(tables[SIGNAL_STAGES[name]][name], np.float32) for name in signals}
    rows = _rows_of(detect["key"].to_pylist())
    for image in tables["images"].to_pylist():
        if image["outcome"] == "done" and image["key"] in live:
            part = rows.get(image["key"], slice(0, 0))
            yield LabelArrays(
                key=image["key"],
                width=image["width"],
                height=image["height"],
                class_name=names[part],
                xyxy=boxes[part],
                accepted=accepted[part],
                rle_counts=counts[part],
                signals={name: column[part] for name, column in values.items()},
            )


def _rows_of(keys: list[str]) -> dict[str, slice]:
    """Which rows are each key's; they stand together."""
    rows, start = {}, 0
    for key, group in groupby(keys):
        end = start + sum(1 for _ in group)
        rows[key], start = slice(start, end), end
    return rows


def labelled_images(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, keys: pa.Array | None = None
) -> Iterator[ExportImage]:
    """Yield every image that is done, with its labels, in constant memory.

    Images come by plan generation and then by key, each from the shard that holds it now; images that left the
    source, failed, or belong to unfinished shards are left out.

    Args:
        workspace: The workspace.
        run: Name of the run.
        ledger: The run's ledger.
        fingerprint: Settings whose markers count.
        keys: Only these images; None: all of them.

    Yields:
        Images in a fixed order, labels in the order of the tables.

    Raises:
        StoreError: A table is missing or damaged.
    """
    markers = current_markers(workspace, run, ledger, fingerprint)
    shards = map_ordered(lambda marker: (marker, _image_tables(workspace, marker, keys)), markers, THREADS)
    for marker, tables in shards:
        if tables:
            yield from _images_of_shard(tables, ledger.keys_of(marker.shard))


def _image_tables(workspace: Store, marker: Marker, keys: pa.Array | None) -> dict[str, pa.Table]:
    """The tables of a shard, and of them the rows of the images wanted; none if it has none of these."""
    parts = marker.parts
    images = read_part(workspace, parts["images"], "images")
    if keys is not None:
        images = images.filter(pc.is_in(images["key"], value_set=keys))
        if not images.num_rows:
            return {}
    tables = {
        "detect": read_part(workspace, parts["detect"], "detect", _DETECT),
        "segment": read_part(workspace, parts["segment"], "segment", ["rle_counts", "mask_area"]),
        "route": read_part(workspace, parts["route"], "route", _ROUTE),
    }
    if keys is not None:
        wanted = pc.is_in(tables["detect"]["key"], value_set=keys)
        tables = {stage: table.filter(wanted) for stage, table in tables.items()}
    return {"images": images, **tables}


def _images_of_shard(tables: dict[str, pa.Table], live: set[str]) -> Iterator[ExportImage]:
    labels = {key: [label for _, label in group] for key, group in groupby(_labels(tables), key=lambda pair: pair[0])}
    for row in tables["images"].to_pylist():
        if row["outcome"] == "done" and row["key"] in live:
            yield ExportImage(
                key=row["key"],
                width=row["width"],
                height=row["height"],
                labels=labels.get(row["key"], []),
                sha256=row["sha256"],
                orientation=row["orientation"],
            )


def _labels(tables: dict[str, pa.Table]) -> Iterator[tuple[str, ExportLabel]]:
    detect, segment, routed = (tables[stage] for stage in ("detect", "segment", "route"))
    columns = [detect[name].to_pylist() for name in _DETECT]
    columns += [segment[name].to_pylist() for name in ("rle_counts", "mask_area")]
    columns += [routed[name].to_pylist() for name in _ROUTE]
    for label_id, key, name, x0, y0, x1, y1, score, counts, area, p_correct, decision, policy in zip(
        *columns, strict=True
    ):
        yield key, ExportLabel(label_id, name, (x0, y0, x1, y1), counts, area, score, p_correct, decision, policy)


def current_markers(workspace: Store, run: str, ledger: Ledger, fingerprint: str) -> Iterator[Marker]:
    """Yield the marker of every shard that still holds images and is done, in plan order."""
    finished = shards_done(workspace, run, fingerprint)
    shards = [shard.id for shard in ledger.shards() if shard.id in finished]
    for marker in map_ordered(lambda shard: read_marker(workspace, run, shard, fingerprint), shards, MARKER_THREADS):
        if marker is not None:
            yield marker


class Decisions:
    """The present decisions of a run, read from the tables of its router when first asked for, and kept."""

    def __init__(self, workspace: Store, run: str) -> None:
        """Read nothing yet.

        Args:
            workspace: The workspace.
            run: Name of the run; it need not have been run.
        """
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
                markers = current_markers(self._workspace, self._run, ledger, current.fingerprint)
                parts = (marker.parts["route"] for marker in markers)
                tables += map_ordered(
                    lambda part: read_part(self._workspace, part, "route", _DECISION_COLUMNS), parts, THREADS
                )
        # Latest first: of an image that several shards had, the last one counts.
        table = pa.concat_tables(tables[::-1])
        return flat(table["label_id"]), numbers(pc.equal(table["decision"], "accept"), np.bool_)


def image_sizes(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, keys: Collection[str]
) -> dict[str, tuple[int, int]]:
    """Look up images by their keys; reads the run's tables of images, unless there is nothing to look up.

    Args:
        workspace: The workspace.
        run: Name of the run.
        ledger: The run's ledger.
        fingerprint: Settings whose markers count.
        keys: Of the images, relative to the source.

    Returns:
        Key -> width and height, pixels of the EXIF-oriented original; without images that the run did not label.

    Raises:
        StoreError: A table is missing or damaged.
    """
    if not keys:
        return {}
    wanted = pa.array(sorted(keys), pa.string())
    markers = current_markers(workspace, run, ledger, fingerprint)
    found: dict[str, tuple[int, int]] = {}
    for marker, images in map_ordered(lambda marker: (marker, _sizes(workspace, marker, wanted)), markers, THREADS):
        live = ledger.keys_of(marker.shard) if images else ()
        found |= {key: size for key, size in images.items() if key in live}
    return found


def _sizes(workspace: Store, marker: Marker, wanted: pa.Array) -> dict[str, tuple[int, int]]:
    table = read_part(workspace, marker.parts["images"], "images", _SIZE_COLUMNS)
    chosen = pc.and_(pc.equal(table["outcome"], "done"), pc.is_in(table["key"], value_set=wanted))
    return {row["key"]: (row["width"], row["height"]) for row in table.filter(chosen).to_pylist()}
