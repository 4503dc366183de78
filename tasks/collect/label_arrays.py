"""Streams the labels of a run as arrays, image by image, with the signals that are asked for."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.records import Marker
from schemas.tables import BOX, STAGES
from tasks.arrow import boxes_of, numbers
from tasks.collect.markers import current_markers
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_part
from tasks.store.store import Store, map_ordered

THREADS: Final = 4

_LABEL_STAGES: Final = ("detect", "segment", "score", "route")


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
    shards = map_ordered(lambda marker: (marker, _tables(workspace, marker, signals)), markers, THREADS)
    for marker, tables in shards:
        yield from _images(tables, ledger.keys_of(marker.shard), signals)


def _tables(workspace: Store, marker: Marker, signals: Sequence[str]) -> dict[str, pa.Table]:
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


def _images(tables: dict[str, pa.Table], live: set[str], signals: Sequence[str]) -> Iterator[LabelArrays]:
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
