"""Finds what an earlier marker of a shard holds that need not be computed again."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from schemas.errors import StoreError
from schemas.records import Marker
from tasks.shard.markers import markers_of
from tasks.shard.parts import read_part
from tasks.store.store import Store

PIXEL_STAGES = ("detect", "segment", "score")
"""Stages that look at labels in pixels: their tables have a row a label, in one order."""
KEPT_STAGES = (*PIXEL_STAGES, "presence")
"""All stages that look at pixels."""


@dataclass(frozen=True)
class Earlier:
    """Rows of an earlier marker whose stages depend on nothing that has changed."""

    images: dict[str, str] = field(default_factory=dict)
    """Key -> SHA-256 of the content, for the images that were done."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    """Stage -> its whole table, for the stages that stand."""
    rows: dict[str, dict[str, slice]] = field(default_factory=dict)
    """Stage -> key -> its rows in that stage's table."""

    def kept(self, key: str, sha256: str) -> dict[str, pa.Table]:
        """Stage -> the rows of one image, empty when it was not done or had another content."""
        if self.images.get(key) != sha256:
            return {}
        rows = {stage: self.rows[stage].get(key, slice(0, 0)) for stage in self.tables}
        return {stage: self.tables[stage].slice(part.start, part.stop - part.start) for stage, part in rows.items()}


def best_marker(store: Store, run: str, shard: str, stages: dict[str, str]) -> Marker | None:
    """Choose the marker of a shard that shares most stages with those wanted; None when none shares detection."""
    usable = [marker for marker in markers_of(store, run, shard) if marker.stages["detect"] == stages["detect"]]
    return max(usable, key=lambda marker: len(standing(marker, stages)), default=None)


def standing(marker: Marker, stages: dict[str, str]) -> list[str]:
    """List the stages of a marker that depend on nothing that has changed; one of an older Vouch may lack some."""
    return [stage for stage, key in stages.items() if marker.stages.get(stage) == key]


def read_earlier(store: Store, marker: Marker, stages: dict[str, str]) -> Earlier:
    """Read what stands of a marker.

    Raises:
        StoreError: One of its tables is missing or damaged.
    """
    images = read_part(store, marker.parts["images"], "images")
    done = {
        row["key"]: row["sha256"]
        for row in images.select(["key", "sha256", "outcome"]).to_pylist()
        if row["outcome"] == "done"
    }
    stages_kept = [stage for stage in KEPT_STAGES if stage in standing(marker, stages)]
    tables = {stage: read_part(store, marker.parts[stage], stage) for stage in stages_kept}
    if len({tables[stage].num_rows for stage in PIXEL_STAGES if stage in tables}) > 1:
        raise StoreError(f"the tables of shard {marker.shard} differ in length; delete its markers")
    labels = _rows_of(tables["detect"])
    rows = {stage: _rows_of(table) if stage == "presence" else labels for stage, table in tables.items()}
    return Earlier(done, tables, rows)


def _rows_of(table: pa.Table) -> dict[str, slice]:
    """Which rows are each key's; they stand together."""
    keys = table["key"].to_pylist()
    starts = np.flatnonzero([index == 0 or key != keys[index - 1] for index, key in enumerate(keys)]).tolist()
    return {keys[start]: slice(start, end) for start, end in zip(starts, [*starts[1:], len(keys)], strict=True)}
