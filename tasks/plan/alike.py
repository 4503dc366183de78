"""Finds shards that may hold the content of new images already: copied, touched, moved or come back.

Only a worker that has fetched an image knows its content. What is written here says where it should look: shards in
which an image of the same key, version tag or size lies. A hint that is missing or wrong costs time, nothing else.
"""

from collections.abc import Iterable
from typing import Final

from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.errors import ObjectMissingError
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.store.store import Store

MOST: Final = 32
"""Shards that one shard is compared with, and in which a tag or size may occur that is worth a comparison."""

# An image that failed and is only tried again has nothing to offer: its own earlier shard is left out.
TABLES: Final = """
DROP TABLE IF EXISTS wanted;
DROP TABLE IF EXISTS leaving;
CREATE TABLE wanted AS
    SELECT listed.key, listed.etag, listed.size, planned.shard, EXISTS (
        SELECT 1 FROM images WHERE images.key = listed.key AND images.etag = listed.etag AND images.size = listed.size
    ) AS again
    FROM planned JOIN listed ON listed.key = planned.key;
DELETE FROM wanted WHERE again;
CREATE TABLE leaving AS
    SELECT size, shard FROM images WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.key = images.key)
    UNION ALL SELECT size, shard FROM gone;
"""

SAME_KEY: Final = """
SELECT wanted.shard, known.shard, count(*) FROM wanted
    JOIN (SELECT key, size, shard FROM images UNION ALL SELECT key, size, shard FROM gone) AS known
    ON known.key = wanted.key AND (known.size = wanted.size OR known.size < 0 OR wanted.size < 0)
GROUP BY 1, 2
"""

SAME_TAG: Final = """
WITH known AS (
    SELECT etag, shard FROM images WHERE etag <> '' AND etag IN (SELECT etag FROM wanted) GROUP BY etag, shard
), few AS (SELECT etag FROM known GROUP BY etag HAVING count(*) <= ?)
SELECT mine.shard, known.shard, sum(mine.images) FROM
    (SELECT etag, shard, count(*) AS images FROM wanted GROUP BY etag, shard) AS mine
    JOIN known ON known.etag = mine.etag JOIN few ON few.etag = mine.etag
GROUP BY 1, 2
"""

SAME_SIZE: Final = """
WITH known AS (
    SELECT size, shard FROM leaving WHERE size >= 0 AND size IN (SELECT size FROM wanted) GROUP BY size, shard
), few AS (SELECT size FROM known GROUP BY size HAVING count(*) <= ?)
SELECT mine.shard, known.shard, sum(mine.images) FROM
    (SELECT size, shard, count(*) AS images FROM wanted GROUP BY size, shard) AS mine
    JOIN known ON known.size = mine.size JOIN few ON few.size = mine.size
GROUP BY 1, 2
"""


class Alike(Strict):
    """Says of a shard where the content of its images may have been labelled before."""

    shards: tuple[str, ...] = Field(description="Ids of earlier shards, the most promising first.")


def write_alike(workspace: Store, run: str, ledger: Ledger) -> None:
    """Write the hints of new shards, which stand in the tables `cut`, `planned` and `listed` of a ledger.

    Raises:
        StoreError: The workspace cannot be written.
    """
    database = ledger.database
    if not ledger.generation or database.execute("SELECT 1 FROM cut LIMIT 1").fetchone() is None:
        return
    database.executescript(TABLES)
    scores: dict[int, dict[int, int]] = {}
    for query, values in ((SAME_KEY, ()), (SAME_TAG, (MOST,)), (SAME_SIZE, (MOST,))):
        for place, other, images in database.execute(query, values):
            found = scores.setdefault(place, {})
            found[other] = found.get(other, 0) + images

    def ids(table: str, places: Iterable[int]) -> tuple[str, ...]:
        query = f"SELECT id FROM {table} WHERE number = ?"  # noqa: S608 - our own names
        return tuple(shard for place in places for (shard,) in database.execute(query, (place,)))

    for place, found in scores.items():
        names = ids("shards", sorted(found, key=lambda other: (-found[other], other))[:MOST])
        if names:
            key = alike_key(run, *ids("cut", [place]))
            workspace.put(key, Alike(shards=names).model_dump_json().encode())
    database.executescript("DROP TABLE wanted; DROP TABLE leaving;")


def read_alike(workspace: Store, run: str, shard: str) -> tuple[str, ...]:
    """Read the hints of a shard; none where there are none, or where they cannot be read."""
    try:
        return Alike.model_validate_json(workspace.get(alike_key(run, shard)).data).shards
    except (ObjectMissingError, ValidationError):
        return ()


def alike_key(run: str, shard: str) -> str:
    """Key of the hints of a shard."""
    return f"runs/{run}/alike/{shard}.json"
