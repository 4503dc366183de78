"""Takes over the rows of images whose content was labelled before, under another key or version tag.

Labels depend on an image's content, not on its name: of a file that was copied, touched or moved, or that comes back,
rows are copied as they are, but for keys and the label ids that are made of them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import ImageRef, Marker
from vouch_labels.tasks.arrow import boxes_of, rows_of_keys
from vouch_labels.tasks.detect import label_ids
from vouch_labels.tasks.shard.files import markers_of, read_part
from vouch_labels.tasks.shard.pipeline import Pipeline
from vouch_labels.tasks.shard.reuse import Earlier, best_marker, read_earlier, with_found
from vouch_labels.tasks.shard.steps import FOUND_OF, Work
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

Rows = dict[str, pa.Table]
"""Stage -> the rows of one image."""


class Alike:
    """What earlier shards hold of images, found by content; nothing is read before the first question."""

    def __init__(self, store: Store, run: str, shards: Sequence[str], pipeline: Pipeline, policy: Policy) -> None:
        """Take the ids of the shards to look in, the most promising first, and what rows must have been made by."""
        self._store, self._run, self._shards, self._pipeline = store, run, shards, pipeline
        self._stages = pipeline.stages(policy)
        self._contents: dict[str, tuple[Marker, str]] | None = None
        self._read: dict[str, Earlier] = {}

    def take_over(self, work: Work, sha256: str) -> bool:
        """Give an image the rows of one with the same content, as if they were its own; says whether there is one."""
        if self._contents is None:
            self._contents = self._look()
        if sha256 not in self._contents:
            return False
        marker, other = self._contents[sha256]
        try:
            if marker.shard not in self._read:
                earlier = read_earlier(self._store, marker, self._stages)
                markers = markers_of(self._store, self._run, marker.shard)
                self._read[marker.shard] = with_found(self._store, earlier, markers, self._pipeline)
        except StoreError as error:
            # What is damaged elsewhere is no reason not to label this image.
            logger.info("shard %s is not used again: %s", marker.shard, error)
            self._read[marker.shard] = Earlier()
        rows = self._read[marker.shard].kept(other, sha256)
        if rows:
            work.kept = rekeyed(rows, work.ref.key, sha256)
            work.found = self._read[marker.shard].found_of(other, sha256)
        return bool(rows)

    def _look(self) -> dict[str, tuple[Marker, str]]:
        """SHA-256 -> the marker and the key under which that content was labelled."""
        found: dict[str, tuple[Marker, str]] = {}
        for shard in self._shards:
            try:
                marker = best_marker(self._store, self._run, shard, self._stages)
                if marker is None:
                    continue
                images = read_part(self._store, marker.parts["images"], "images", ["key", "sha256", "outcome"])
            except StoreError as error:
                logger.info("shard %s is not used again: %s", shard, error)
                continue
            for row in images.to_pylist():
                if row["outcome"] == "done":
                    found.setdefault(row["sha256"], (marker, row["key"]))
        return found


def rekeyed(rows: Rows, key: str, sha256: str) -> Rows:
    """Give rows of one image as they would be under another key; `detect` must be among them."""
    detect = rows["detect"]
    ids = label_ids(key, sha256, detect["class_name"].to_pylist(), boxes_of(detect))
    found = {}
    for stage, table in rows.items():
        columns = {"key": [key] * table.num_rows, "label_id": ids}
        for name in columns.keys() & set(table.column_names):
            place = table.column_names.index(name)
            table = table.set_column(place, table.schema.field(name), pa.array(columns[name], pa.string()))
        found[stage] = table
    return found


@dataclass(frozen=True)
class Copy:
    """An image with the content of another one of its shard."""

    ref: ImageRef
    sha256: str
    original: str
    """Key of the first image with this content, which alone was looked at."""


def with_copies(tables: dict[str, pa.Table], copies: Sequence[Copy], refs: Sequence[ImageRef]) -> dict[str, pa.Table]:
    """Add the rows of copies to the tables of a shard, in plan order.

    Args:
        tables: Stage -> its whole table, in plan order; what the detector found likewise.
        copies: Images without rows so far.
        refs: All images of the shard, in plan order.
    """
    if not copies:
        return tables
    labels = rows_of_keys(tables["detect"])
    # All others have a row a label, in the order of `detect`.
    own = [name for name in tables if name in ("images", "presence") or name.startswith(FOUND_OF)]
    places = dict.fromkeys(tables, labels) | {name: rows_of_keys(tables[name]) for name in own}
    copy_of = {copy.ref.key: copy for copy in copies}
    pieces: dict[str, list[pa.Table]] = {stage: [table.schema.empty_table()] for stage, table in tables.items()}
    for ref in refs:
        copy = copy_of.get(ref.key)
        rows = {
            stage: _part(tables[stage], places[stage].get(ref.key if copy is None else copy.original))
            for stage in tables
        }
        if copy is not None:
            rows = rekeyed(rows, ref.key, copy.sha256)
            images = rows["images"]
            place = images.column_names.index("etag")
            etag = pa.array([ref.etag] * images.num_rows, pa.string())
            rows["images"] = images.set_column(place, images.schema.field("etag"), etag)
        for stage, table in rows.items():
            pieces[stage].append(table)
    return {stage: pa.concat_tables(parts) for stage, parts in pieces.items()}


def _part(table: pa.Table, rows: slice | None) -> pa.Table:
    return table.slice(0, 0) if rows is None else table.slice(rows.start, rows.stop - rows.start)
