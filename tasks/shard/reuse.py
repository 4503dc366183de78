"""Reuses what an earlier marker of a shard holds: stages that need not be computed again, or all but the routing."""

from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from vouch_labels.schemas.campaign import SIGNALS
from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Marker
from vouch_labels.schemas.tables import STAGES
from vouch_labels.tasks.arrow import rows_of_keys
from vouch_labels.tasks.route import route
from vouch_labels.tasks.shard.files import decision_counts, markers_of, read_part, write_marker, write_part
from vouch_labels.tasks.shard.pipeline import rerouted, stages_fingerprint
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.store.store import Store

PIXEL_STAGES = ("detect", "segment", "score")
"""Stages that look at labels in pixels: their tables have a row a label, in one order."""
KEPT_STAGES = (*PIXEL_STAGES, "presence")
"""All stages that look at pixels."""

_ALWAYS: Final = {
    "images": ("key", "sha256"),
    "detect": ("label_id", "key", "class_name"),
    "segment": ("label_id",),
    "score": ("label_id",),
}
"""Stage -> columns that the router needs for any policy."""


@dataclass(frozen=True)
class Earlier:
    """Rows of an earlier marker whose stages depend on nothing that has changed."""

    images: dict[str, str] = field(default_factory=dict)
    """Key -> SHA-256 of the content, for the images that were done."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    """Stage -> its whole table, for the stages that can be reused."""
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
    return max(usable, key=lambda marker: len(reusable_stages(marker, stages)), default=None)


def reusable_stages(marker: Marker, stages: dict[str, str]) -> list[str]:
    """List the stages of a marker that depend on nothing that has changed; one of an older Vouch may lack some."""
    return [stage for stage, key in stages.items() if marker.stages.get(stage) == key]


def read_earlier(store: Store, marker: Marker, stages: dict[str, str]) -> Earlier:
    """Read what can be reused of a marker.

    Raises:
        StoreError: One of its tables is missing or damaged.
    """
    images = read_part(store, marker.parts["images"], "images")
    done = {
        row["key"]: row["sha256"]
        for row in images.select(["key", "sha256", "outcome"]).to_pylist()
        if row["outcome"] == "done"
    }
    stages_kept = [stage for stage in KEPT_STAGES if stage in reusable_stages(marker, stages)]
    tables = {stage: read_part(store, marker.parts[stage], stage) for stage in stages_kept}
    if len({tables[stage].num_rows for stage in PIXEL_STAGES if stage in tables}) > 1:
        raise StoreError(f"the tables of shard {marker.shard} differ in length; delete its markers")
    labels = rows_of_keys(tables["detect"])
    rows = {stage: rows_of_keys(table) if stage == "presence" else labels for stage, table in tables.items()}
    return Earlier(done, tables, rows)


def reroute_shard(workspace: Store, run: str, older: Marker, policy: Policy) -> Marker:
    """Decide over the labels of a shard again; all its tables but the decisions are taken from an older marker.

    Returns:
        The marker under that policy, written or found; the older one stays.

    Raises:
        StoreError: A table is missing or damaged.
        VouchError: The tables are not of the same labels.
        UserError: The policy cannot be used for these labels.
    """
    tables = {
        stage: read_part(workspace, older.parts[stage], stage, columns) for stage, columns in _columns(policy).items()
    }
    decisions = route(tables["images"], tables["detect"], tables["segment"], tables["score"], policy)
    stages = rerouted(older.stages, policy)
    marker = Marker(
        shard=older.shard,
        fingerprint=stages_fingerprint(stages),
        stages=stages,
        parts={**older.parts, "route": write_part(workspace, run, older.shard, "route", decisions)},
        counts=older.counts.model_copy(update=decision_counts(tables["detect"], decisions)),
    )
    return write_marker(workspace, run, marker)


def _columns(policy: Policy) -> dict[str, list[str]]:
    """Stage -> the columns that the router will look at."""
    if policy.certification is not None:
        signals = Calibrator.from_dict(policy.certification.calibrator).signals
    else:
        signals = SIGNALS
    return {
        stage: [*always, *(name for name in signals if stage != "images" and name in STAGES[stage].names)]
        for stage, always in _ALWAYS.items()
    }
