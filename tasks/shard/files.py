"""Writes and reads the files of shards: tables, each one atomic put, and the markers that say what is done."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from vouch_labels.schemas.errors import ObjectMissingError, StoreError
from vouch_labels.schemas.records import ClassCounts, Current, Marker, Part, ShardCounts
from vouch_labels.schemas.tables import FOUND, STAGES
from vouch_labels.tasks.route import ACCEPT, OUTSIDE, REVIEW
from vouch_labels.tasks.shard.events import Progress
from vouch_labels.tasks.store.store import Store

COUNTED = ["key", "format", "outcome", "step", "reason"]
"""Columns of IMAGES that `count` needs."""


def write_part(store: Store, run: str, shard: str, stage: str, table: pa.Table) -> Part:
    """Write one table of a shard, of the schema STAGES[stage]; equal rows give equal bytes, and so the same name."""
    sink = pa.BufferOutputStream()
    # One chunk a column, so that the bytes do not depend on how the rows were gathered.
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    key = part_key(run, shard, stage, sha256)
    store.put(key, data)
    return Part(name=key, sha256=sha256, rows=table.num_rows)


def write_found(store: Store, run: str, shard: str, table: pa.Table) -> Part:
    """Write what the detector found for texts asked together, of schema FOUND."""
    return write_part(store, run, shard, "found", table)


def read_part(store: Store, part: Part, stage: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table that a marker names, or some of its columns; outside this package, use tasks.labels.scan.

    Raises:
        StoreError: The file is missing, is not the one that was written, or lacks a column of STAGES[stage] that is
            wanted. Columns that a later version adds are no matter to those who do not want them.
    """
    markers = part.name.replace("/parts/", "/done/").rpartition("/")[0]
    fix = f"delete {markers}/, and the shard is processed again"
    try:
        data = store.get(part.name).data
    except ObjectMissingError as error:
        raise StoreError(f"{store.uri}/{part.name} is missing; {fix}") from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise StoreError(f"{store.uri}/{part.name} is not the file that was written; {fix}")
    file = pq.ParquetFile(pa.BufferReader(data))
    schema = FOUND if stage == "found" else STAGES[stage]
    wanted = schema.names if columns is None else list(columns)
    there = set(file.schema_arrow.names)
    if any(name not in there or not file.schema_arrow.field(name).equals(schema.field(name)) for name in wanted):
        raise StoreError(f"{store.uri}/{part.name} is of another version of Vouch; start another run")
    # Shards are read side by side, so that threads within one are in each other's way.
    return file.read(wanted, use_threads=False)


def write_marker(store: Store, run: str, marker: Marker) -> Marker:
    """Write a marker unless the shard has one under these settings; return the one that counts.

    Of two workers that finish a shard at once, both get the marker of the first.
    """
    key = marker_key(run, marker.shard, marker.fingerprint)
    if store.put(key, marker.model_dump_json(indent=1).encode(), if_absent=True):
        return marker
    return _parse(store, key)


def read_marker(store: Store, run: str, shard: str, fingerprint: str) -> Marker | None:
    """Read the marker of a shard under some settings; None while it is not done.

    Raises:
        StoreError: The marker cannot be read.
    """
    try:
        return _parse(store, marker_key(run, shard, fingerprint))
    except ObjectMissingError:
        return None


def markers_of(store: Store, run: str, shard: str) -> list[Marker]:
    """Read the markers of a shard under all settings, in the order of their fingerprints."""
    return [_parse(store, info.key) for info in store.list(f"{done_folder(run)}{shard}/")]


def shards_done(store: Store, run: str, fingerprint: str) -> Iterator[str]:
    """Yield the ids of the shards that are done under some settings; one listing, no reads."""
    folder, name = done_folder(run), f"{fingerprint}.json"
    places = (info.key.removeprefix(folder).partition("/") for info in store.list(folder))
    return (shard for shard, _, file in places if file == name)


def read_current(store: Store, run: str) -> Current | None:
    """Read which settings a run used last; None before its first."""
    try:
        return Current.model_validate_json(store.get(current_key(run)).data)
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(f"{store.uri}/{current_key(run)} is damaged; run `vouch run` to write it again") from None


def write_current(store: Store, run: str, current: Current) -> None:
    """Write which settings a run uses from now on."""
    store.put(current_key(run), current.model_dump_json(indent=1).encode())


def _parse(store: Store, key: str) -> Marker:
    try:
        return Marker.model_validate_json(store.get(key).data)
    except ValidationError:
        raise StoreError(f"{store.uri}/{key} is damaged; delete it, and the shard is processed again") from None


def part_key(run: str, shard: str, stage: str, sha256: str) -> str:
    """Key of a table, named by its content: writing it again changes nothing."""
    return f"runs/{run}/parts/{shard}/{stage}-{sha256[:16]}.parquet"


def done_folder(run: str) -> str:
    """Prefix of all markers of a run, with its last slash."""
    return f"runs/{run}/done/"


def marker_key(run: str, shard: str, fingerprint: str) -> str:
    """Key of the marker that a shard is done under some settings."""
    return f"{done_folder(run)}{shard}/{fingerprint}.json"


def current_key(run: str) -> str:
    """Key of the record that names the settings last used."""
    return f"runs/{run}/current.json"


def count(tables: dict[str, pa.Table]) -> ShardCounts:
    """Count the rows of a shard's tables, or of a part of them."""
    from vouch_labels.tasks.decode import mislabelled  # what only adds markers up needs no readers of images

    images = tables["images"].select(COUNTED).to_pylist()
    reasons = Counter(f"{row['step']}: {row['reason']}" for row in images if row["outcome"] == "failed")
    skipped = Counter(row["reason"] for row in images if row["outcome"] == "skipped")
    done = [row for row in images if row["outcome"] == "done"]
    return ShardCounts(
        images=len(images),
        done=len(done),
        failed=sum(reasons.values()),
        reasons=dict(sorted(reasons.items())),
        skipped=dict(sorted(skipped.items())),
        misnamed=sum(mislabelled(row["key"], row["format"]) is not None for row in done),
        **decision_counts(tables["detect"], tables["route"]),
    )


def decision_counts(detect: pa.Table, decisions: pa.Table) -> dict[str, Any]:
    """Count labels by class and decision: the fields of ShardCounts that a policy changes, and `labels`."""
    pairs = pa.table({"class": detect["class_name"], "decision": decisions["decision"]})
    rows = pairs.group_by(["class", "decision"]).aggregate([([], "count_all")]).to_pylist()
    decided = Counter({(row["class"], row["decision"]): row["count_all"] for row in rows})
    classes = {
        name: ClassCounts(accepted=decided[name, ACCEPT], review=decided[name, REVIEW])
        for name in sorted({name for name, _ in decided})
    }
    return {
        "labels": pairs.num_rows,
        "accepted": sum(entry.accepted for entry in classes.values()),
        "review": sum(entry.review for entry in classes.values()),
        "classes": classes,
        "outside": _outside(decisions),
    }


def _outside(decisions: pa.Table) -> int:
    if "reason" not in decisions.column_names:
        return 0
    return int(pc.sum(pc.equal(decisions["reason"], OUTSIDE)).as_py() or 0)


def progress_of(counts: ShardCounts) -> Progress:
    """Say counts as progress; what was skipped is through, too."""
    return Progress(counts.done + sum(counts.skipped.values()), counts.failed, counts.accepted, counts.review)
