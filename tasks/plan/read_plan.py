"""Reads the images of one shard of a plan."""

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StoreError
from schemas.records import ImageRef
from schemas.tables import PLAN
from tasks.plan.layout import shard_key
from tasks.store.store import Store


def read_plan(workspace: Store, run: str, shard_id: str) -> list[ImageRef]:
    """Read the images of a shard, sorted by the UTF-8 bytes of their keys.

    Args:
        workspace: The workspace's store.
        run: Name of the run.
        shard_id: Id of a shard of one of the run's generations.

    Raises:
        ObjectMissingError: There is no such shard.
        StoreError: Its table is damaged.
    """
    key = shard_key(run, shard_id)
    data = workspace.get(key).data
    try:
        table = pq.read_table(pa.BufferReader(data), schema=PLAN)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"{workspace.uri}/{key} is damaged ({reason}); restore it or start another run") from error
    columns = (table.column(name).to_pylist() for name in ("key", "etag", "size"))
    return list(map(ImageRef, *columns))
