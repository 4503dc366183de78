"""Streams the labelled images of a run, as its present plan and settings have them."""

from collections.abc import Iterator
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import Marker
from tasks.collect.markers import current_markers
from tasks.export.records import ExportImage, ExportLabel
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_part
from tasks.store.store import Store, map_ordered

THREADS = 4

_DETECT = ["label_id", "key", "class_name", "x0", "y0", "x1", "y1", "detector_score"]
_ROUTE = ["p_correct", "decision", "policy"]


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
    shards = map_ordered(lambda marker: (marker, _tables(workspace, marker, keys)), markers, THREADS)
    for marker, tables in shards:
        if tables:
            yield from _images(tables, ledger.keys_of(marker.shard))


def _tables(workspace: Store, marker: Marker, keys: pa.Array | None) -> dict[str, pa.Table]:
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


def _images(tables: dict[str, pa.Table], live: set[str]) -> Iterator[ExportImage]:
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
