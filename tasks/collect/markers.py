"""The markers that count: of the present plan, under the present settings."""

from collections.abc import Iterator

from schemas.records import Marker
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_marker, shards_done
from tasks.store.store import Store, map_ordered

THREADS = 8


def current_markers(workspace: Store, run: str, ledger: Ledger, fingerprint: str) -> Iterator[Marker]:
    """Yield the marker of every shard that still holds images and is done, in plan order."""
    finished = shards_done(workspace, run, fingerprint)
    shards = [shard.id for shard in ledger.shards() if shard.id in finished]
    for marker in map_ordered(lambda shard: read_marker(workspace, run, shard, fingerprint), shards, THREADS):
        if marker is not None:
            yield marker
