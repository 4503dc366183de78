"""Writes and reads the tables of a shard, each one atomic put."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ObjectMissingError, StoreError
from schemas.records import Part
from schemas.tables import STAGES
from tasks.shard.layout import part_key
from tasks.store.store import Store


def write_part(store: Store, run: str, shard: str, stage: str, table: pa.Table) -> Part:
    """Write one table of a shard.

    Args:
        store: The workspace.
        run: Name of the run.
        shard: Shard id.
        stage: Key of schemas.tables.STAGES; the table has its schema.
        table: Its rows.

    Returns:
        Where it lies, with the hash of its bytes; equal rows give equal bytes.
    """
    sink = pa.BufferOutputStream()
    # One chunk a column, so that the bytes do not depend on how the rows were gathered.
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    key = part_key(run, shard, stage, sha256)
    store.put(key, data)
    return Part(name=key, sha256=sha256, rows=table.num_rows)


def read_part(store: Store, part: Part, stage: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table that a marker names.

    Raises:
        StoreError: The file is missing, is not the one that was written, or has another schema.
    """
    markers = part.name.replace("/parts/", "/done/").rpartition("/")[0]
    mend = f"delete {markers}/, and the shard is worked off again"
    try:
        data = store.get(part.name).data
    except ObjectMissingError as error:
        raise StoreError(f"{store.uri}/{part.name} is missing; {mend}") from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise StoreError(f"{store.uri}/{part.name} is not the file that was written; {mend}")
    table = pq.read_table(pa.BufferReader(data), columns=columns)
    if columns is None and not table.schema.equals(STAGES[stage]):
        raise StoreError(f"{store.uri}/{part.name} is of another version of Vouch; start another run")
    return table
