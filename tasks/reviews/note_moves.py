"""Notes which reviewed images have moved: images that left the source while their content came under another key."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import boxes_of, rows_of_keys
from vouch_labels.tasks.detect import label_ids
from vouch_labels.tasks.labels.scan import THREADS, Shard, shards
from vouch_labels.tasks.plan.ledger import Ledger, added_shards, read_generation
from vouch_labels.tasks.reviews.moved import FOLDER, MOVED, moved_key
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.shard.files import markers_of
from vouch_labels.tasks.store.store import Store, map_ordered

_LABEL_COLUMNS: Final = ["label_id", "key", "class_name", *BOX]


@dataclass(frozen=True)
class _Reviews:
    """What people were asked about, or have answered."""

    labels: frozenset[str]
    keys: frozenset[str]
    plans: int

    @classmethod
    def read(cls, workspace: Store, run: str) -> "_Reviews":
        plans = read_plans(workspace, run)
        tables = [read_verdicts(workspace), *(tasks for _, tasks in plans)]
        labels, keys = (
            frozenset(value for table in tables for value in table[name].drop_null().to_pylist())
            for name in ("label_id", "key")
        )
        return cls(labels, keys, max((plan.number for plan, _ in plans), default=0))


def note_moves(workspace: Store, run: str, ledger: Ledger, fingerprint: str) -> int:
    """Write the records of moves of a run whose shards are all done, and count the images that moved.

    An image has moved when it left the source, and the source holds its content under a key that came with the same
    generation, or of which nothing was asked or answered. Every generation is looked at once, also after an
    interruption; of one without a moved image that was reviewed, the record is empty.

    Raises:
        StoreError: A table is missing or damaged, or the workspace cannot be written.
    """
    folder = f"{FOLDER}{run}/"
    noted = {info.key for info in workspace.list(folder)}
    due = [number for number in ledger.removals() if moved_key(run, number) not in noted]
    moved = 0
    for number in due:
        gone = ledger.gone(number)
        contents = {shard: _contents(workspace, run, ledger, shard, keys) for shard, keys in gone.items()}
        reviews = _Reviews.read(workspace, run)
        every = {key: sha256 for part in contents.values() for key, sha256 in part.items()}
        came = {shard.id for shard in added_shards(workspace, run, read_generation(workspace, run, number))}
        found = _found(shards(workspace, run, ledger, fingerprint), every, came, reviews)
        new_keys = _new_keys(every, found, reviews)
        moved += len(new_keys)
        rows: list[dict[str, str | None]] = []
        for shard, part in contents.items():
            here = {key: sha256 for key, sha256 in part.items() if key in new_keys}
            if here:
                rows += _label_rows(_each(workspace, run, ledger, shard, "detect"), here, new_keys, reviews)
                # Those that were asked about or answered as a whole.
                rows += [
                    {"label_id": None, "key": key, "new_label_id": None, "new_key": new_keys[key]}
                    for key in here
                    if key in reviews.keys
                ]
        now = datetime.now(UTC)
        table = pa.Table.from_pylist([{**row, "plans": reviews.plans, "moved_at": now} for row in rows], schema=MOVED)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        workspace.put(moved_key(run, number), sink.getvalue().to_pybytes(), if_absent=True)
    return moved


def _contents(workspace: Store, run: str, ledger: Ledger, shard: str, keys: Sequence[str]) -> dict[str, str]:
    """Key -> SHA-256 of images that a shard held, under whatever settings they were done."""
    sought = {"key": pa.array(keys, pa.string())}
    found: dict[str, str] = {}
    for old in _each(workspace, run, ledger, shard, "images"):
        found |= {row["key"]: row["sha256"] for row in old.images(["key", "sha256"], sought, gone=True).to_pylist()}
    return found


def _each(workspace: Store, run: str, ledger: Ledger, shard: str, stage: str) -> list[Shard]:
    """A shard under each of the settings that it was done with, as far as the table of a stage differs."""
    markers = {marker.parts[stage]: marker for marker in markers_of(workspace, run, shard)}
    return [Shard(workspace, marker, ledger) for marker in markers.values()]


def _found(
    live: Iterable[Shard], contents: Mapping[str, str], came: Set[str], reviews: _Reviews
) -> dict[str, list[str]]:
    """SHA-256 -> keys that the source has with that content now, and that may take over its reviews."""
    if not contents:
        return {}
    sought = {"sha256": pa.array(sorted(set(contents.values())), pa.string())}
    tables = map_ordered(
        lambda shard: (shard.marker.shard in came, shard.images(["key", "sha256"], sought)), live, THREADS
    )
    found: dict[str, list[str]] = {}
    for new, table in tables:
        for row in table.to_pylist():
            if new or row["key"] not in reviews.keys:
                found.setdefault(row["sha256"], []).append(row["key"])
    return found


def _new_keys(contents: Mapping[str, str], found: Mapping[str, list[str]], reviews: _Reviews) -> dict[str, str]:
    """Old key -> new key; of several images with one content each gets its own, those reviewed first."""
    free = {sha256: iter(keys) for sha256, keys in found.items()}
    new_keys = {}
    for old in sorted(contents, key=lambda key: (key not in reviews.keys, key)):
        new = next(free.get(contents[old], iter(())), None)
        if new is not None:
            new_keys[old] = new
    return new_keys


def _label_rows(
    olds: Iterable[Shard], contents: Mapping[str, str], new_keys: Mapping[str, str], reviews: _Reviews
) -> Iterator[dict[str, str | None]]:
    """The labels of moved images of a shard that were asked about or answered, each once."""
    seen: set[str] = set()
    for old in olds:
        labels = old.labels(_LABEL_COLUMNS, {"key": pa.array(list(contents), pa.string())}, gone=True)
        for key, rows in rows_of_keys(labels).items():
            table, new_key = labels.slice(rows.start, rows.stop - rows.start), new_keys[key]
            new_ids = label_ids(new_key, contents[key], table["class_name"].to_pylist(), boxes_of(table))
            for label_id, new_id in zip(table["label_id"].to_pylist(), new_ids, strict=True):
                if label_id in reviews.labels and label_id not in seen:
                    seen.add(label_id)
                    yield {"label_id": label_id, "key": key, "new_label_id": new_id, "new_key": new_key}
