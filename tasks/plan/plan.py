"""Plans incrementally: compares the source's images (listing or manifest) with what is planned, and cuts new shards."""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vouch_labels.schemas.campaign import IMAGE_GLOBS, VIDEO_SUFFIXES, Location, Source
from vouch_labels.schemas.errors import UserError, WorkspaceBusyError
from vouch_labels.schemas.records import Generation, ImageRef, ShardRef
from vouch_labels.schemas.tables import PLAN, REMOVED, SHARDS
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.fingerprint import LENGTH, fingerprint
from vouch_labels.tasks.plan.alike import write_alike
from vouch_labels.tasks.plan.ledger import Ledger, disk_errors, generation_key, removed_key, shard_key, shards_key
from vouch_labels.tasks.store.manifest import compile_filter, read_manifest
from vouch_labels.tasks.store.source import (
    COMPRESSED,
    COMPRESSED_SUFFIXES,
    SourceStore,
    container_in,
)
from vouch_labels.tasks.store.store import ObjectInfo, Store, map_ordered

BATCH_ROWS = 10_000
WRITE_THREADS = 8
INLINE_SHARDS = 1000
"""Shards that a generation's record lists itself; more are a table beside it, which is read in parts."""

HIDDEN = "hidden"
EXCLUDED = "excluded by the campaign"
OTHER = "other"
MOST_KINDS = 40
"""Kinds of skipped files that are told apart."""
LONGEST_KIND = 5
"""Letters of an extension that names a kind."""

LISTED = """
DROP TABLE IF EXISTS listed;
CREATE TABLE listed (key TEXT PRIMARY KEY, etag TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
"""

FIRST = """
DELETE FROM listed WHERE key NOT IN (SELECT key FROM listed ORDER BY key LIMIT ?)
"""

TABLES = """
DROP TABLE IF EXISTS retried;
DROP TABLE IF EXISTS planned;
DROP TABLE IF EXISTS cut;
CREATE TABLE retried (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE cut (number INTEGER PRIMARY KEY, id TEXT NOT NULL, count INTEGER NOT NULL, first_key TEXT NOT NULL);
CREATE TABLE planned (key TEXT PRIMARY KEY, shard INTEGER NOT NULL) WITHOUT ROWID;
"""

# What the listing does not know (no etag, size -1) is no difference to what the ledger knows.
DUE = """
SELECT listed.key, listed.etag, listed.size, retried.key IS NOT NULL
FROM listed LEFT JOIN images ON images.key = listed.key LEFT JOIN retried ON retried.key = listed.key
WHERE images.key IS NULL OR retried.key IS NOT NULL
    OR (listed.etag <> '' AND listed.etag <> images.etag) OR (listed.size >= 0 AND listed.size <> images.size)
ORDER BY listed.key
"""

GONE = """
SELECT key FROM images WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.key = images.key) ORDER BY key
"""

LET_GO = """
INSERT OR REPLACE INTO gone SELECT key, etag, size, shard, {number:d} FROM images
    WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.key = images.key);
DELETE FROM images WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.key = images.key);
"""

# A shard comes again when a change is undone: all its images come with it, so its old place is free.
APPLY = """
INSERT OR REPLACE INTO shards SELECT number, id, count, first_key FROM cut;
INSERT OR REPLACE INTO images
    SELECT listed.key, listed.etag, listed.size, planned.shard FROM planned JOIN listed ON listed.key = planned.key;
DROP TABLE listed;
DROP TABLE retried;
DROP TABLE planned;
DROP TABLE cut;
"""

CUT = "SELECT id, count, first_key FROM cut ORDER BY number"


class _Cut(NamedTuple):
    shard: ShardRef
    images: list[ImageRef]


def plan(
    source: Iterable[ImageRef],
    workspace: Store,
    run: str,
    ledger: Ledger,
    shard_size: int,
    retry: Iterable[str] = (),
    *,
    progress: Callable[[int], None] | None = None,
    allow_empty: bool = False,
) -> Generation | None:
    """Take a listing of the source and plan by it, see `take_listing` and `plan_listed`."""
    take_listing(source, ledger, progress)
    return plan_listed(workspace, run, ledger, shard_size, retry, allow_empty=allow_empty)


def take_listing(
    source: Iterable[ImageRef],
    ledger: Ledger,
    progress: Callable[[int], None] | None = None,
    first: int | None = None,
) -> int:
    """Note in a ledger what the source holds now, beside what is planned; nothing is written to the workspace.

    Args:
        source: What the source holds now, in any order; the first of several rows with one key counts.
        ledger: The run's ledger.
        progress: Called now and then with the number of rows read from the source.
        first: Keep so many images, the first by the UTF-8 bytes of their keys; None: all.

    Returns:
        How many images it holds.

    Raises:
        StoreError: The local disk for temporary files is full.
    """
    rows, read = iter(source), 0
    with ledger.lock, disk_errors():
        ledger.database.executescript(LISTED)
        with ledger.transaction():
            while batch := list(islice(rows, BATCH_ROWS)):
                ledger.database.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", batch)
                read += len(batch)
                if progress is not None:
                    progress(read)
        if first is not None:
            ledger.database.execute(FIRST, (first,))
        return _count(ledger, "listed")


def count_unplanned(ledger: Ledger) -> int:
    """How many images of a listing `plan_listed` would plan, once `is_planned` has been asked."""
    with ledger.lock, disk_errors():
        return int(ledger.database.execute(f"SELECT count(*) FROM ({DUE})").fetchone()[0])  # noqa: S608 - our own query


def first_listed(ledger: Ledger) -> str:
    """Key of the first image of a listing (`take_listing`); empty without one."""
    with ledger.lock:
        return str(ledger.database.execute("SELECT coalesce(min(key), '') FROM listed").fetchone()[0])


def plan_listed(
    workspace: Store,
    run: str,
    ledger: Ledger,
    shard_size: int,
    retry: Iterable[str] = (),
    *,
    allow_empty: bool = False,
    in_part: bool = False,
) -> Generation | None:
    """Write the next generation of a run's plan by the listing, in constant memory for any number of images.

    Images that are new or whose etag or size changed, and those of `retry`, are cut in the order of their keys'
    UTF-8 bytes into new shards; images that left the source are noted as removed. An etag "" or size -1 of the source
    counts as unchanged. The same source after the same plans gives the same shards, also after a kill half-way: the
    generation's record is written last, and what was written before it does not exist without it.

    Args:
        workspace: The workspace's store.
        run: Name of the run.
        ledger: The run's ledger, with a listing (`take_listing`); it holds the new generation afterwards.
        shard_size: Images a shard, but for the last one.
        retry: Keys to plan again although unchanged (failed images); those that the source lacks are passed over.
        allow_empty: Accept that the source has become empty, and let go of all images.
        in_part: The listing is a part of the source: what it lacks has not left it.

    Returns:
        What was added; None when nothing changed and so nothing was written.

    Raises:
        UserError: The source is empty.
        WorkspaceBusyError: Another run has planned in the meantime.
        StoreError: The local disk for temporary files is full, or the workspace cannot be written.
    """
    number = ledger.generation + 1
    with ledger.lock, disk_errors():
        listed = _count(ledger, "listed")
        if listed == 0:
            refuse_empty(ledger, allow_empty=allow_empty)
        _note_retried(ledger, retry)
        shards = _write_shards(workspace, run, ledger, shard_size, number)
        removed, removed_id = (0, "") if in_part else _write_removed(workspace, run, ledger, number)
        if not shards and not removed:
            return None
        write_alike(workspace, run, ledger)
        inline, shards_id = _list_shards(workspace, run, ledger, number, shards)
        generation = Generation(
            number=number, shards=inline, shards_id=shards_id, removed=removed, removed_id=removed_id, listed=listed
        )
        record = generation.model_dump_json(indent=1).encode()
        if not workspace.put(generation_key(run, number), record, if_absent=True):
            raise WorkspaceBusyError(f"another process has planned run {run!r} at the same time; start this one again")
        if removed:
            ledger.database.executescript(LET_GO.format(number=number))
        ledger.database.executescript(APPLY)
        ledger.generation = number
        return generation


def is_planned(ledger: Ledger, retry: Iterable[str] = ()) -> bool:
    """Whether all that a listing (`take_listing`) has is planned as it is, so that `plan_listed` would cut no shard.

    Raises:
        StoreError: The local disk for temporary files is full.
    """
    with ledger.lock, disk_errors():
        _note_retried(ledger, retry)
        return ledger.database.execute(f"{DUE} LIMIT 1").fetchone() is None


def _note_retried(ledger: Ledger, retry: Iterable[str]) -> None:
    ledger.database.executescript(TABLES)
    with ledger.transaction():
        ledger.database.executemany("INSERT OR IGNORE INTO retried VALUES (?)", ((key,) for key in retry))


def _count(ledger: Ledger, table: str) -> int:
    return int(ledger.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names


def nothing_to_label(skipped: Collection[str]) -> UserError:
    """The error of a source without images, by the kinds of files that were skipped."""
    if any(suffix.upper() in skipped for suffix in VIDEO_SUFFIXES):
        return UserError("the source holds no image to label, but videos; set source.video to take frames of them")
    return UserError("the source holds no image to label; check the prefix in source.uri, and source.include")


def refuse_empty(ledger: Ledger, *, skipped: Collection[str] = (), allow_empty: bool = False) -> None:
    """Refuse a source without images, see `plan_listed`.

    Raises:
        UserError: Nothing is planned either, or what is planned may not be let go.
    """
    planned = ledger.count()
    if planned == 0:
        raise nothing_to_label(skipped)
    if not allow_empty:
        raise UserError(
            f"the source is empty now, but {plural(planned, 'image of it is', 'images of it are')} planned; check the "
            "prefix in source.uri and source.include, or start another run"
        )


def _write_shards(workspace: Store, run: str, ledger: Ledger, shard_size: int, number: int) -> int:
    """Write the tables of the new shards, note them in the ledger, and count them."""

    def write(cut: _Cut) -> _Cut:
        workspace.put(shard_key(run, cut.shard.id), _table_bytes(cut.images), if_absent=True)
        return cut

    first = place = ledger.next_place()
    with ledger.transaction():
        for shard, images in map_ordered(write, _cuts(ledger, shard_size, number), WRITE_THREADS):
            rows = ((ref.key, place) for ref in images)
            ledger.database.executemany("INSERT INTO planned VALUES (?, ?)", rows)
            row = (place, shard.id, shard.count, shard.first_key)
            ledger.database.execute("INSERT INTO cut VALUES (?, ?, ?, ?)", row)
            place += 1
    return place - first


def _list_shards(
    workspace: Store, run: str, ledger: Ledger, number: int, count: int
) -> tuple[tuple[ShardRef, ...], str]:
    """The new shards for the generation's record: themselves, or the id of the table that is written of many."""
    rows = ledger.database.execute(CUT)
    if count <= INLINE_SHARDS:
        return tuple(ShardRef(id=shard, count=images, first_key=key) for shard, images, key in rows), ""
    digest = hashlib.sha256()
    for shard, *_ in rows:
        digest.update(shard.encode())
    shards_id = digest.hexdigest()[:LENGTH]
    _write_rows(workspace, shards_key(run, number, shards_id), ledger.database.execute(CUT), SHARDS)
    return (), shards_id


def _write_rows(workspace: Store, key: str, rows: sqlite3.Cursor, schema: pa.Schema) -> None:
    """Write the rows of a query as a table, some at a time."""
    with workspace.open_writer(key) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := rows.fetchmany(BATCH_ROWS):
            writer.write_table(pa.table([list(column) for column in zip(*batch, strict=True)], schema=schema))


def _cuts(ledger: Ledger, shard_size: int, number: int) -> Iterator[_Cut]:
    rows = ledger.database.execute(DUE)
    while chunk := list(islice(rows, shard_size)):
        images = [ImageRef(key, etag, size) for key, etag, size, _ in chunk]
        # A shard that repeats images unchanged must not be taken for the one that failed with them.
        attempt = number if any(retried for *_, retried in chunk) else 0
        shard_id = fingerprint(images, attempt)
        yield _Cut(ShardRef(id=shard_id, count=len(images), first_key=images[0].key), images)


def _table_bytes(images: list[ImageRef]) -> bytes:
    columns = zip(*images, strict=True)
    table = pa.table([list(column) for column in columns], schema=PLAN)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _write_removed(workspace: Store, run: str, ledger: Ledger, number: int) -> tuple[int, str]:
    digest = hashlib.sha256()
    count = 0
    for (key,) in ledger.database.execute(GONE):
        digest.update(key.encode() + b"\0")
        count += 1
    if count == 0:
        return 0, ""
    removed_id = digest.hexdigest()[:LENGTH]
    _write_rows(workspace, removed_key(run, number, removed_id), ledger.database.execute(GONE), REMOVED)
    return count, removed_id


def list_source(
    source: Source,
    store: Store,
    base: Path | None = None,
    workspace: Location | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[ImageRef]:
    """Yield the images that a source names, a page in memory at a time.

    Of a container, such as a tar file, the images inside are given, see `SourceStore`; one that cannot be read is given
    itself, so that it fails with the reason.

    A manifest stands for itself: only globs that the campaign spells out are applied to it, not the default ones.
    What a manifest leaves out (etag, size) is looked up where that is cheap, in a folder; for S3 it stays unknown.
    A workspace below the source is left out of a listing, or the images of its exports would be labelled again. So are
    hidden files and folders, whose names begin with a dot, unless a glob of `include` spells such a name out. Where
    `include` is the default, files without an extension are taken as well: whether they are images shows when they are
    read.

    Files of a listing that are not taken are counted in `skipped`, by the kind that their names tell: the extension in
    capitals, hidden, excluded.

    A relative manifest starts from `base`, the folder of the campaign file. The workspace's uri is as absolute as the
    source's.

    Raises:
        UserError: The manifest cannot be read, or a source that is listed is the workspace itself.
        StoreAccessError: The source cannot be listed.
    """
    if source.manifest is None:
        counts = Counter[str]() if skipped is None else skipped

        def skip(kind: str) -> None:
            counts[kind if kind in counts or len(counts) < MOST_KINDS else OTHER] += 1

        kind_of = _kind_filter(source)
        files = _files(source, store, _folder_of(workspace, source), skip, counts)
        if isinstance(store, SourceStore):
            files = store.expand(files, counts)
        for info in files:
            # The view itself gives those that it cannot read, so that they fail with a reason.
            kind = None if isinstance(store, SourceStore) and store.is_container(info.key) else kind_of(info.key)
            if kind is None:
                yield ImageRef(*info)
            else:
                skip(kind)
        return
    takes = compile_filter(source.include if "include" in source.model_fields_set else ("**",), source.exclude)
    is_folder = store.local_path("x") is not None
    refs = read_manifest(source.manifest, source.s3, base=base, source=store, look_up=is_folder)
    yield from (ref for ref in refs if takes(ref.key))


def _files(
    source: Source, store: Store, own: tuple[str, ...], skip: Callable[[str], None], counts: Counter[str]
) -> Iterator[ObjectInfo]:
    """What the store lists, without the workspace and containers that are left out with all that they hold."""
    excludes, is_hidden = compile_filter(source.exclude), _hidden_filter(source)
    for info in store.list(left_out=counts):
        if info.key.startswith(own):
            continue
        if isinstance(store, SourceStore) and store.is_container(info.key):
            if is_hidden(info.key):
                skip(HIDDEN)
                continue
            if source.exclude and excludes(info.key):
                skip(EXCLUDED)
                continue
        yield info


def _hidden_filter(source: Source) -> Callable[[str], bool]:
    """Make a function that says whether a key is hidden, and no glob spells such a name out."""
    shows_hidden = any(
        part.startswith(".") and part not in {".", ".."} for glob in source.include for part in glob.split("/")
    )
    return lambda key: not shows_hidden and (key.startswith(".") or "/." in key)


def _kind_filter(source: Source) -> Callable[[str], str | None]:
    """Make a function that says as what kind of file a key is left out; None: it is taken.

    An image in a container that a glob of `include` covers is taken by that.
    """
    takes, excludes = compile_filter(source.include), compile_filter(source.exclude)
    is_image, is_hidden = compile_filter(IMAGE_GLOBS), _hidden_filter(source)
    looks_into = source.include == IMAGE_GLOBS

    def is_taken(key: str) -> bool:
        if takes(key) or (looks_into and not PurePosixPath(key).suffix):
            return True
        container = container_in(key)
        return bool(container) and takes(container) and (is_image(key) or not PurePosixPath(key).suffix)

    def kind(key: str) -> str | None:
        if is_hidden(key):
            return HIDDEN
        if not is_taken(key):
            if key.lower().endswith(COMPRESSED_SUFFIXES):
                return COMPRESSED
            name = PurePosixPath(key).suffix[1:].upper()
            return name if name.isalnum() and not name.isdigit() and len(name) <= LONGEST_KIND else OTHER
        return EXCLUDED if source.exclude and excludes(key) else None

    return kind


def _folder_of(workspace: Location | None, source: Source) -> tuple[str, ...]:
    """Prefix of the keys that are the workspace's own, with its last slash; none where it lies elsewhere."""
    if workspace is None or workspace.s3.endpoint_url != source.s3.endpoint_url:
        return ()
    root, folder = (f"{place.uri.rstrip('/')}/" for place in (source, workspace))
    if folder == root:
        raise UserError(f"source and workspace are both {source.uri}; use another workspace, or a folder below it")
    return (folder.removeprefix(root),) if folder.startswith(root) else ()
