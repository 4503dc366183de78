"""Looks up the sizes of a few images of a run, which masks of verdicts are held against."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import Marker
from tasks.collect.markers import current_markers
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_part
from tasks.store.store import Store, map_ordered

_COLUMNS = ["key", "outcome", "width", "height"]
_THREADS = 4


def image_sizes(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, keys: Collection[str]
) -> dict[str, tuple[int, int]]:
    """Look up images by their keys; reads the run's tables of images, unless there is nothing to look up.

    Args:
        workspace: The workspace.
        run: Name of the run.
        ledger: The run's ledger.
        fingerprint: Settings whose markers count.
        keys: Of the images, relative to the source.

    Returns:
        Key -> width and height, pixels of the EXIF-oriented original; without images that the run did not label.

    Raises:
        StoreError: A table is missing or damaged.
    """
    if not keys:
        return {}
    wanted = pa.array(sorted(keys), pa.string())
    markers = current_markers(workspace, run, ledger, fingerprint)
    found: dict[str, tuple[int, int]] = {}
    for marker, images in map_ordered(lambda marker: (marker, _sizes(workspace, marker, wanted)), markers, _THREADS):
        live = ledger.keys_of(marker.shard) if images else ()
        found |= {key: size for key, size in images.items() if key in live}
    return found


def _sizes(workspace: Store, marker: Marker, wanted: pa.Array) -> dict[str, tuple[int, int]]:
    table = read_part(workspace, marker.parts["images"], "images", _COLUMNS)
    chosen = pc.and_(pc.equal(table["outcome"], "done"), pc.is_in(table["key"], value_set=wanted))
    return {row["key"]: (row["width"], row["height"]) for row in table.filter(chosen).to_pylist()}
