"""Reads all plans of a run together: which shard holds each image now, and the images of each shard."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.records import Generation, ImageRef, ShardRef
from vouch_labels.schemas.tables import PLAN, SHARDS
from vouch_labels.tasks.store.store import Store, map_ordered

READ_THREADS = 8
CACHE_KIB = 32 * 1024

TABLES = """
CREATE TABLE images (key TEXT PRIMARY KEY, etag TEXT NOT NULL, size INTEGER NOT NULL, shard INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE shards (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, count INTEGER NOT NULL,
    first_key TEXT NOT NULL);
CREATE TABLE gone (key TEXT PRIMARY KEY, etag TEXT NOT NULL, size INTEGER NOT NULL, shard INTEGER NOT NULL,
    generation INTEGER NOT NULL) WITHOUT ROWID;
"""
DUE_TABLES = """
DROP TABLE IF EXISTS finished;
DROP TABLE IF EXISTS asked;
DROP TABLE IF EXISTS due;
CREATE TABLE finished (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE asked (number INTEGER PRIMARY KEY);
CREATE TABLE due (number INTEGER PRIMARY KEY);
"""
ASKED = "INSERT INTO asked SELECT number FROM shards WHERE EXISTS (SELECT 1 FROM images WHERE shard = shards.number)"
ASKED_FIRST = "INSERT OR IGNORE INTO asked SELECT shard FROM (SELECT shard FROM images ORDER BY key LIMIT ?)"
NOW_DUE = """
INSERT INTO due SELECT number FROM asked JOIN shards USING (number) WHERE id NOT IN (SELECT id FROM finished)
"""
DUE_COUNTS = """
SELECT (SELECT count(*) FROM due), (SELECT coalesce(sum(count), 0) FROM due JOIN shards USING (number)),
    (SELECT count(*) FROM images JOIN asked ON number = shard WHERE NOT EXISTS (SELECT 1 FROM due WHERE number = shard))
"""
DUE_PAGE = """
SELECT number, id, count, first_key FROM due JOIN shards USING (number) WHERE number > ? ORDER BY number LIMIT 1000
"""
BY_SHARD = "CREATE INDEX images_by_shard ON images (shard)"


class Due(NamedTuple):
    """How much is to be done."""

    shards: int
    """Shards that are due."""
    images: int
    """Images that they were cut with."""
    done: int
    """Images that shards which were asked for and are done hold now."""


@dataclass(frozen=True)
class _First:
    """The only generation of a run, not folded yet."""

    workspace: Store
    run: str
    generation: Generation

    @cached_property
    def counts(self) -> dict[str, int]:
        """Id of each shard -> its images."""
        return {shard.id: shard.count for shard in self.shards()}

    def shards(self) -> Iterator[ShardRef]:
        """Its shards, in key order."""
        return added_shards(self.workspace, self.run, self.generation)


class Ledger:
    """The fold of all generations of a run, in an unnamed SQLite file on local disk.

    The file lies where TMPDIR says and vanishes with the process, however that ends. Memory stays at SQLite's page
    cache for any number of images. Keys compare by their UTF-8 bytes.
    """

    def __init__(self) -> None:
        """Start with no images."""
        # An empty name is a private file that is unlinked as soon as it is made.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA temp_store = FILE")
        self._database.executescript(TABLES)
        self._first: _First | None = None
        self.lock = threading.RLock()
        self.generation = 0
        """Number of the last generation; 0 before the first."""

    @property
    def database(self) -> sqlite3.Connection:
        """The file, with every generation in it."""
        with self.lock:
            if self._first is not None:
                first, self._first = self._first, None
                with disk_errors():
                    self._fold(first.workspace, first.run, first.generation)
                    self._database.execute(BY_SHARD)
        return self._database

    @classmethod
    def load(cls, workspace: Store, run: str) -> "Ledger":
        """Fold the plans of a run; use the result in a with block.

        Of a run that was planned once every shard holds what it was cut with: that is folded when it is asked for.

        Raises:
            StoreError: A generation is missing, or the local disk is full.
        """
        ledger = cls()
        try:
            with disk_errors():
                numbers = _generations(workspace, run)
                for number in numbers:
                    generation = read_generation(workspace, run, number)
                    if numbers == [1] and not generation.removed:
                        ledger._first, ledger.generation = _First(workspace, run, generation), number
                    else:
                        ledger._fold(workspace, run, generation)
                if ledger._first is None:
                    ledger._database.execute(BY_SHARD)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def count(self) -> int:
        """Count the images that the source holds, as of the last generation."""
        with self.lock:
            if self._first is not None:
                return sum(self._first.counts.values())
            return int(self.database.execute("SELECT count(*) FROM images").fetchone()[0])

    def shards(self) -> list[ShardRef]:
        """List the shards that still hold an image, by generation and then by first key.

        A shard's count is what it was cut with: of its images, others may hold some by now.
        """
        query = """SELECT id, count, first_key FROM shards
            WHERE EXISTS (SELECT 1 FROM images WHERE shard = shards.number) ORDER BY number"""
        with self.lock:
            if self._first is not None:
                return list(self._first.shards())
            return [ShardRef(id=i, count=count, first_key=key) for i, count, key in self.database.execute(query)]

    def held(self) -> dict[str, int]:
        """Id of each shard that still holds an image -> how many it holds."""
        query = "SELECT id, count(*) FROM images JOIN shards ON shard = shards.number GROUP BY shards.number"
        with self.lock:
            if self._first is not None:
                return dict(self._first.counts)
            return dict(self.database.execute(query).fetchall())

    def images_of(self, shard_id: str) -> int:
        """Count the images that a shard holds now."""
        query = "SELECT count(*) FROM images WHERE shard = (SELECT number FROM shards WHERE id = ?)"
        with self.lock:
            if self._first is not None and shard_id in self._first.counts:
                return self._first.counts[shard_id]
            return int(self.database.execute(query, (shard_id,)).fetchone()[0])

    def keys_of(self, shard_id: str) -> set[str]:
        """Give the keys that a shard holds now: those that no later shard holds and that have not left the source."""
        query = "SELECT key FROM images WHERE shard = (SELECT number FROM shards WHERE id = ?)"
        with self.lock:
            if self._first is not None and shard_id in self._first.counts:
                return {image.key for image in read_plan(self._first.workspace, self._first.run, shard_id)}
            return {key for (key,) in self.database.execute(query, (shard_id,))}

    def settle_due(self, done: Iterable[str], first: int | None = None) -> Due:
        """Note which shards are due: those that hold an image and are not done.

        Args:
            done: Ids of the shards that are done.
            first: Only shards that hold some of so many images, the first by the UTF-8 bytes of their keys; None: all.
        """
        with self.lock, disk_errors():
            self.database.executescript(DUE_TABLES)
            with self.transaction():
                self.database.executemany("INSERT OR IGNORE INTO finished VALUES (?)", ((shard,) for shard in done))
            self.database.execute(ASKED if first is None else ASKED_FIRST, () if first is None else (first,))
            self.database.execute(NOW_DUE)
            return Due(*self.database.execute(DUE_COUNTS).fetchone())

    def due(self) -> Iterator[ShardRef]:
        """Yield the shards that `settle_due` found, in plan order; a page of them is in memory."""
        last = 0
        while True:
            with self.lock:
                page = self.database.execute(DUE_PAGE, (last,)).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield from (ShardRef(id=i, count=count, first_key=key) for _, i, count, key in page)

    def gone(self, number: int) -> dict[str, list[str]]:
        """Give the keys that left the source with a generation and are not back: id of the shard -> its keys.

        The shard is the one that held the image last, so its tables have the image's content and labels.
        """
        query = """SELECT shards.id, gone.key FROM gone JOIN shards ON shards.number = gone.shard
            WHERE generation = ? AND NOT EXISTS (SELECT 1 FROM images WHERE images.key = gone.key)"""
        found: dict[str, list[str]] = {}
        with self.lock:
            for shard, key in self.database.execute(query, (number,)):
                found.setdefault(shard, []).append(key)
        return found

    def removals(self) -> list[int]:
        """List the generations with which images left the source that have not left it again, ascending."""
        with self.lock:
            rows = self.database.execute("SELECT DISTINCT generation FROM gone ORDER BY generation").fetchall()
        return [number for (number,) in rows]

    def next_place(self) -> int:
        """Give the place in the order that the next shard added will have."""
        with self.lock:
            return 1 + int(self.database.execute("SELECT coalesce(max(number), 0) FROM shards").fetchone()[0])

    def images_from(self, place: int) -> int:
        """Count the images that shards from a place on were cut with."""
        query = "SELECT coalesce(sum(count), 0) FROM shards WHERE number >= ?"
        with self.lock:
            return int(self.database.execute(query, (place,)).fetchone()[0])

    def add_shards(self, shards: Iterable[ShardRef]) -> None:
        """Append shards that hold nothing yet, in consecutive places."""
        rows = (
            (place, shard.id, shard.count, shard.first_key) for place, shard in enumerate(shards, self.next_place())
        )
        with self.lock, self.transaction():
            # A shard comes again when a change is undone: all its images come with it, so its old place is free.
            self.database.executemany("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Delete the file."""
        self._database.close()

    def __enter__(self) -> Self:
        """Nothing to do: the ledger is loaded."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the file."""
        self.close()

    def _fold(self, workspace: Store, run: str, generation: Generation) -> None:
        number = generation.number
        if generation.removed:
            key = removed_key(run, number, generation.removed_id)
            with workspace.open_reader(key) as file, self.transaction():
                for batch in pq.ParquetFile(file).iter_batches(columns=["key"]):
                    self._remove(batch, number)
        shards = added_shards(workspace, run, generation)
        plans = map_ordered(lambda shard: read_plan(workspace, run, shard.id), shards, READ_THREADS)
        place = self.next_place()
        self.add_shards(added_shards(workspace, run, generation))
        with self.transaction():
            for images in plans:
                rows = ((*image, place) for image in images)
                self.database.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)
                place += 1
        self.generation = number

    def _remove(self, batch: pa.RecordBatch, number: int) -> None:
        keys = [(key,) for key in batch.column(0).to_pylist()]
        noted = "INSERT OR REPLACE INTO gone SELECT key, etag, size, shard, ? FROM images WHERE key = ?"
        self.database.executemany(noted, ((number, *key) for key in keys))
        self.database.executemany("DELETE FROM images WHERE key = ?", keys)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group changes, which is faster."""
        self.database.execute("BEGIN")
        try:
            yield
        finally:
            # Nothing is rolled back without a journal, and nothing needs to be: an error ends the ledger.
            self.database.execute("COMMIT")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn SQLite's complaints about the local disk into one line.

    Raises:
        StoreError: The disk with temporary files is full or broken.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"planning needs temporary disk space ({error}); free some or set TMPDIR elsewhere") from error


def read_generation(workspace: Store, run: str, number: int) -> Generation:
    """Read what one planning added.

    Raises:
        ObjectMissingError: There is no such generation.
        StoreError: Its record is damaged.
    """
    key = generation_key(run, number)
    try:
        return Generation.model_validate_json(workspace.get(key).data)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise StoreError(
            f"{workspace.uri}/{key} is no plan of this version ({problem}); restore it or start another run"
        ) from error


def added_shards(workspace: Store, run: str, generation: Generation) -> Iterator[ShardRef]:
    """Yield the shards that a generation added, in key order, a part of them in memory.

    Raises:
        ObjectMissingError: Their table is missing.
        StoreError: It is damaged.
    """
    yield from generation.shards
    if not generation.shards_id:
        return
    key = shards_key(run, generation.number, generation.shards_id)
    with workspace.open_reader(key) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(columns=SHARDS.names):
                yield from (ShardRef.model_validate(row) for row in batch.to_pylist())
        except (pa.ArrowException, OSError, ValidationError) as error:
            raise _damaged(workspace, key, error) from error


def _damaged(workspace: Store, key: str, error: Exception) -> StoreError:
    reason = " ".join(str(error).split())
    return StoreError(f"{workspace.uri}/{key} is damaged ({reason}); restore it or start another run")


def _generations(workspace: Store, run: str) -> list[int]:
    folder = plan_folder(run)
    names = (info.key.removeprefix(folder) for info in workspace.list(folder))
    numbers = sorted(int(name.removesuffix(".json")) for name in names if name.endswith(".json"))
    if numbers != list(range(1, len(numbers) + 1)):
        missing = next(number for number in range(1, numbers[-1]) if number not in numbers)
        raise StoreError(
            f"{workspace.uri}/{generation_key(run, missing)} is missing from the plan; restore it or start another run"
        )
    return numbers


def read_plan(workspace: Store, run: str, shard_id: str) -> list[ImageRef]:
    """Read the images of a shard, sorted by the UTF-8 bytes of their keys.

    Raises:
        ObjectMissingError: There is no such shard.
        StoreError: Its table is damaged.
    """
    key = shard_key(run, shard_id)
    data = workspace.get(key).data
    try:
        table = pq.read_table(pa.BufferReader(data), schema=PLAN)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(workspace, key, error) from error
    columns = (table.column(name).to_pylist() for name in ("key", "etag", "size"))
    return list(map(ImageRef, *columns))


def plan_folder(run: str) -> str:
    """Prefix of all files of a run's plan, with its last slash."""
    return f"runs/{run}/plan/"


def shard_key(run: str, shard_id: str) -> str:
    """Key of a shard's table (schema PLAN)."""
    return f"{plan_folder(run)}{shard_id}.parquet"


def generation_key(run: str, number: int) -> str:
    """Key of a generation's record, written last."""
    return f"{plan_folder(run)}{number:06d}.json"


def shards_key(run: str, number: int, shards_id: str) -> str:
    """Key of the table of shards that a large generation added (schema SHARDS)."""
    return f"{plan_folder(run)}{number:06d}-{shards_id}-shards.parquet"


def removed_key(run: str, number: int, removed_id: str) -> str:
    """Key of the table of images that left the source with a generation (schema REMOVED)."""
    return f"{plan_folder(run)}{number:06d}-{removed_id}-removed.parquet"
