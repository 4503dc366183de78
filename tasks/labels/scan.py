"""The one reader of what a run's shards hold, as Arrow tables, a shard at a time: labels, images and presence.

Columns, their types and their frames are those of schemas.tables: boxes are xyxy in pixels of the EXIF-oriented
original. Shards come in plan order, images in plan order within each, and the labels of an image stand together, best
detector score first. Rows of images that have left the source, or that a later shard holds now, are left out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.records import Marker
from vouch_labels.schemas.tables import STAGES
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import read_marker, read_part, shards_done
from vouch_labels.tasks.store.store import Store, map_ordered

THREADS: Final = 4
"""Shards that are read at once."""
_MARKER_THREADS: Final = 8
_MARKERS: Final = 4
"""Markers that a thread reads before it looks for more."""

LABEL_TABLES: Final = ("detect", "segment", "score", "route")
"""Stages whose tables have a row a label, in one order."""
TABLE_OF: Final = {field.name: stage for stage in LABEL_TABLES for field in STAGES[stage]}
"""Column of labels -> a stage whose table has it."""

Values = Mapping[str, pa.Array]
"""Column -> values sought; a row matters where any of the columns has one of its values."""


@dataclass(frozen=True)
class Shard:
    """A finished shard of a run under some settings."""

    workspace: Store
    marker: Marker
    ledger: Ledger
    """Must be open as long as tables are read."""

    @cached_property
    def keys(self) -> set[str]:
        """Keys of the images that it holds now."""
        return self.ledger.keys_of(self.marker.shard)

    @cached_property
    def whole(self) -> bool:
        """Whether it holds every image still that it was made of."""
        return self.ledger.images_of(self.marker.shard) == self.marker.counts.images

    def labels(self, columns: Sequence[str], sought: Values | None = None, *, gone: bool = False) -> pa.Table:
        """Read columns of DETECTIONS, MASKS, SCORES and DECISIONS, one row a label.

        Only the tables that have these columns are read, and of them nothing else. `gone` adds labels of images that it
        does not hold any more.

        Raises:
            StoreError: A table is missing, damaged or of another version.
        """
        required = {} if gone or self.whole else {"key": self._held}
        names = dict.fromkeys([*columns, *(sought or {}), *required])
        table_of = {name: TABLE_OF[name] for name in names}
        if "label_id" in names:
            # Every table has the ids: no further one is opened for them.
            others = (stage for name, stage in table_of.items() if name != "label_id")
            table_of["label_id"] = min(others, default=LABEL_TABLES[0])
        return self._select(table_of, columns, sought, required)

    def images(
        self,
        columns: Sequence[str],
        sought: Values | None = None,
        *,
        outcome: str | None = "done",
        gone: bool = False,
    ) -> pa.Table:
        """Read columns of IMAGES, one row an image; outcome None: both those done and those failed.

        `gone` adds images that it does not hold any more.

        Raises:
            StoreError: The table is missing, damaged or of another version.
        """
        required = {} if gone or self.whole else {"key": self._held}
        if outcome is not None:
            required["outcome"] = pa.array([outcome])
        names = dict.fromkeys([*columns, *(sought or {}), *required], "images")
        return self._select(names, columns, sought, required)

    def presence(self, sought: Values | None = None) -> pa.Table | None:
        """Read its rows of PRESENCE; None where an older version did not look at whole images.

        Raises:
            StoreError: The table is missing, damaged or of another version.
        """
        if "presence" not in self.marker.parts:
            return None
        columns = STAGES["presence"].names
        required = {} if self.whole else {"key": self._held}
        return self._select(dict.fromkeys(columns, "presence"), columns, sought, required)

    @property
    def _held(self) -> pa.Array:
        return pa.array(list(self.keys), pa.string())

    def _select(
        self, table_of: Mapping[str, str], columns: Sequence[str], sought: Values | None, required: Values
    ) -> pa.Table:
        """Some columns of rows with any of the values sought and all of those required; names must be in table_of."""
        parts = self.marker.parts
        if len({parts[stage].rows for stage in table_of.values()}) > 1:
            raise StoreError(f"the tables of shard {self.marker.shard} differ in length; delete its markers")
        tables: dict[str, pa.Table] = {}

        def column(name: str) -> pa.ChunkedArray:
            stage = table_of[name]
            if stage not in tables:
                names = [name for name, table in table_of.items() if table == stage]
                tables[stage] = read_part(self.workspace, parts[stage], stage, names)
            return tables[stage][name]

        tests = [pc.is_in(column(name), value_set=values) for name, values in required.items()]
        if sought is not None:
            tests.append(reduce(pc.or_, (pc.is_in(column(name), value_set=values) for name, values in sought.items())))
        rows = reduce(pc.and_, tests) if tests else None
        schema = pa.schema([STAGES[table_of[name]].field(name) for name in columns])
        if rows is not None and not pc.any(rows, min_count=0).as_py():
            return schema.empty_table()
        table = pa.table([column(name) for name in columns], schema=schema)
        return table if rows is None else table.filter(rows)


def shards(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, among: Collection[str] | None = None
) -> Iterator[Shard]:
    """Yield every shard that still holds images and is done by markers of this fingerprint, in plan order.

    Only its marker is read. `among` are ids of shards that are done: no others are given.

    Raises:
        StoreError: A marker is damaged.
    """
    finished = set(shards_done(workspace, run, fingerprint)) if among is None else among
    ids = [shard.id for shard in ledger.shards() if shard.id in finished]

    def read(some: Sequence[str]) -> list[Marker | None]:
        return [read_marker(workspace, run, shard, fingerprint) for shard in some]

    parts = (ids[start : start + _MARKERS] for start in range(0, len(ids), _MARKERS))
    for markers in map_ordered(read, parts, _MARKER_THREADS):
        yield from (Shard(workspace, marker, ledger) for marker in markers if marker is not None)


def scan(
    workspace: Store,
    run: str,
    ledger: Ledger,
    fingerprint: str,
    columns: Sequence[str],
    sought: Values | None = None,
    *,
    gone: bool = False,
) -> Iterator[pa.Table]:
    """Yield columns of the labels of a run, one table a shard, one row a label; a few shards are held at a time.

    Arguments are those of `shards` and of `Shard.labels`.

    Raises:
        StoreError: A marker or table is missing, damaged or of another version.
    """
    found = shards(workspace, run, ledger, fingerprint)
    return map_ordered(lambda shard: shard.labels(columns, sought, gone=gone), found, THREADS)
