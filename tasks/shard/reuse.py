"""Reuses what an earlier marker of a shard holds: stages that need not be computed again, or all but the routing."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.campaign import SIGNALS
from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Marker
from vouch_labels.schemas.tables import BOX, IMAGES, STAGES
from vouch_labels.tasks.arrow import boxes_of, flat, numbers, rows_of_keys
from vouch_labels.tasks.models.registry import RawDetections
from vouch_labels.tasks.policy import coverage_of_run, label_numbers
from vouch_labels.tasks.route import route
from vouch_labels.tasks.shard.files import decision_counts, markers_of, read_part, write_marker, write_part
from vouch_labels.tasks.shard.numbers import read_numbers
from vouch_labels.tasks.shard.pipeline import Pipeline, rerouted, stages_fingerprint
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
class Rows:
    """Rows about the images of a marker."""

    images: dict[str, str]
    """Key -> SHA-256 of the content, for the images that were done."""
    table: pa.Table
    rows: dict[str, slice]
    """Key -> its rows in the table."""

    def rows_of(self, key: str) -> pa.Table:
        """The rows of one image."""
        part = self.rows.get(key, slice(0, 0))
        return self.table.slice(part.start, part.stop - part.start)


@dataclass(frozen=True)
class Found(Rows):
    """What the detector found for texts asked together: rows of FOUND."""

    texts: int
    """How many texts."""

    def of(self, key: str, sha256: str) -> RawDetections | None:
        """Candidates in one image; None when it was not done or had another content."""
        if self.images.get(key) != sha256:
            return None
        rows = self.rows_of(key)
        scores = numbers(pc.list_flatten(rows["scores"]), np.float32).reshape(rows.num_rows, self.texts)
        return RawDetections(boxes_of(rows), scores)


@dataclass(frozen=True)
class Earlier:
    """Rows of an earlier marker whose stages depend on nothing that has changed."""

    images: dict[str, str] = field(default_factory=dict)
    """Key -> SHA-256 of the content, for the images that were done."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    """Stage -> its whole table, for the stages that can be reused."""
    rows: dict[str, dict[str, slice]] = field(default_factory=dict)
    """Stage -> key -> its rows in that stage's table."""
    found: dict[str, "Found"] = field(default_factory=dict)
    """Key of texts asked together -> what the detector found for them, in whatever marker."""
    masked: "Rows | None" = None
    """Boxes and masks of a marker whose masks depend on nothing else that has changed."""

    def kept(self, key: str, sha256: str) -> dict[str, pa.Table]:
        """Stage -> the rows of one image, empty when it was not done or had another content."""
        if self.images.get(key) != sha256:
            return {}
        rows = {stage: self.rows[stage].get(key, slice(0, 0)) for stage in self.tables}
        return {stage: self.tables[stage].slice(part.start, part.stop - part.start) for stage, part in rows.items()}

    def found_of(self, key: str, sha256: str) -> dict[str, RawDetections]:
        """Key of texts asked together -> what the detector found for them in one image, if its content is the same."""
        return {name: raw for name, part in self.found.items() if (raw := part.of(key, sha256)) is not None}

    def masked_of(self, key: str, sha256: str) -> pa.Table | None:
        """The boxes of one image with their masks; None when it was not done or had another content."""
        return None if self.masked is None or self.masked.images.get(key) != sha256 else self.masked.rows_of(key)


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
    done = _done(store, marker)
    stages_kept = [stage for stage in KEPT_STAGES if stage in reusable_stages(marker, stages)]
    tables = {stage: read_part(store, marker.parts[stage], stage) for stage in stages_kept}
    if len({tables[stage].num_rows for stage in PIXEL_STAGES if stage in tables}) > 1:
        raise StoreError(f"the tables of shard {marker.shard} differ in length; delete its markers")
    labels = rows_of_keys(tables["detect"])
    rows = {stage: rows_of_keys(table) if stage == "presence" else labels for stage, table in tables.items()}
    return Earlier(done, tables, rows)


def _done(store: Store, marker: Marker) -> dict[str, str]:
    """Key -> SHA-256 of the content, of the images that a marker says are done."""
    images = read_part(store, marker.parts["images"], "images", ["key", "sha256", "outcome"])
    return {row["key"]: row["sha256"] for row in images.to_pylist() if row["outcome"] == "done"}


def with_found(store: Store, earlier: Earlier, markers: Sequence[Marker], pipeline: Pipeline) -> Earlier:
    """Add what the detector found before for texts that are still asked together, and masks that depend on boxes alone.

    Either outlives the stage that it was made for: classes may have other names or be divided otherwise, and others may
    have come.

    Raises:
        StoreError: A table is missing or damaged.
    """
    found = {}
    for key, ask in zip(pipeline.found_keys, pipeline.detect.asks, strict=True):
        if (marker := next((one for one in markers if key in one.found), None)) is not None:
            table = read_part(store, marker.found[key], "found")
            found[key] = Found(_done(store, marker), table, rows_of_keys(table), len(ask.phrases))
    masked = None
    fitting = [one for one in markers if one.masks == pipeline.masks_key]
    if fitting and "segment" not in earlier.tables:
        marker = max(fitting, key=lambda one: one.counts.labels)
        boxes = read_part(store, marker.parts["detect"], "detect", ["key", *BOX])
        masks = read_part(store, marker.parts["segment"], "segment")
        if boxes.num_rows != masks.num_rows:
            raise StoreError(f"the tables of shard {marker.shard} differ in length; delete its markers")
        table = pa.Table.from_arrays([*boxes.columns, *masks.columns], schema=pa.schema([*boxes.schema, *masks.schema]))
        masked = Rows(_done(store, marker), table, rows_of_keys(boxes))
    return replace(earlier, found=found, masked=masked)


def reroute_shard(
    workspace: Store, run: str, older: Marker, policy: Policy, stages: dict[str, str] | None = None
) -> Marker:
    """Decide over the labels of a shard again; all its tables but the decisions are taken from an older marker.

    stages: what `rerouted` gives, for those who know it already.

    Returns:
        The marker under that policy, written or found; the older one stays.

    Raises:
        StoreError: A table is missing or damaged.
        VouchError: The tables are not of the same labels.
        UserError: The policy cannot be used for these labels.
    """
    tables = _from_numbers(workspace, older, policy)
    if tables is None:
        wanted = _columns(policy)
        tables = {stage: read_part(workspace, older.parts[stage], stage, names) for stage, names in wanted.items()}
    covered = coverage_of_run(workspace, policy)
    decisions = route(tables["images"], tables["detect"], tables["segment"], tables["score"], policy, covered)
    stages = stages or rerouted(older.stages, policy)
    marker = Marker(
        shard=older.shard,
        fingerprint=stages_fingerprint(stages),
        stages=stages,
        parts={**older.parts, "route": write_part(workspace, run, older.shard, "route", decisions)},
        counts=older.counts.model_copy(update=decision_counts(tables["detect"], decisions)),
        found=older.found,
        masks=older.masks,
        numbers=older.numbers,
    )
    return write_marker(workspace, run, marker)


def _from_numbers(workspace: Store, older: Marker, policy: Policy) -> dict[str, pa.Table] | None:
    """What the router looks at, as the tables that it is in; None where numbers do not have it all."""
    guarantee = policy.certification
    if older.numbers is None or (guarantee is not None and guarantee.fit_share):
        return None
    found = read_numbers(workspace, older.numbers)
    if found is None:
        return None
    ids = read_part(workspace, older.parts["route"], "route", ["label_id"])["label_id"]
    if not np.array_equal(label_numbers(ids), numbers(found["number"], np.uint64)):
        raise StoreError(f"the tables of shard {older.shard} are not of the same labels; delete its markers")
    names = flat(found["class_name"]).dictionary_decode()
    labels = found.set_column(1, "class_name", names).append_column("label_id", ids)
    return {"images": IMAGES.empty_table(), "detect": labels, "segment": labels, "score": labels}


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
