"""Planning many keys: time and peak memory from a folder, a bucket, and made up."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.campaigns import Options, filled_bucket
from benchmarks.harness import Measured, Table, in_child, mebibytes, seconds

if TYPE_CHECKING:
    from vouch_labels.schemas.records import ImageRef

LISTED: Final = 100_000
MADE_UP: Final = 1_000_000
HUGE: Final = 10_000_000
PER_FOLDER: Final = 1_000
SHARD_SIZE: Final = 1_000


def measure(options: Options) -> Table:
    """List and plan a folder, a bucket where S3_TEST_ENDPOINT is set, and keys that lie nowhere."""
    listed = 2_000 if options.quick else LISTED
    made_up = [5_000] if options.quick else [LISTED, MADE_UP, *([HUGE] if options.huge else [])]
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        in_child(_fill_folder, folder=f"{folder}/images", keys=listed)
        found = {f"folder, {listed:,}": _plan(folder, "folder", uri=f"{folder}/images")}
        found |= {f"folder, {listed:,}, nothing new": _plan(folder, "folder", uri=f"{folder}/images")}
        endpoint = os.environ.get("S3_TEST_ENDPOINT")
        if endpoint:
            with filled_bucket(endpoint, listed) as uri:
                found[f"S3 on loopback, {listed:,}"] = _plan(folder, "s3", uri=uri, endpoint=endpoint)
        for keys in made_up:
            found[f"made up, {keys:,}"] = _plan(folder, f"made-up-{keys}", made_up=keys)
    rows = [
        [name, seconds(done.value["listing_seconds"]), seconds(done.value["planning_seconds"]), _memory(done)]
        for name, done in found.items()
    ]
    figures = {f"{name}: peak_bytes": float(done.peak_bytes) for name, done in found.items()}
    figures |= {f"{name}: {key}": value for name, done in found.items() for key, value in done.value.items()}
    return Table(
        title="planning many keys",
        columns=["source, keys", "listing alone", "listing and planning", "peak memory"],
        rows=rows,
        notes=[
            f"Shards of {SHARD_SIZE:,}; the plan goes to a local folder. Planning once more reads the first plan back.",
            "Made up: keys from a generator, so that only planning is measured.",
            "Peak memory is that of the whole process, Python and its imports included; each row is a process.",
        ],
        figures=figures,
    )


def _memory(done: Measured[dict[str, float]]) -> str:
    return mebibytes(done.peak_bytes)


def _plan(folder: str, run: str, *, uri: str = "", endpoint: str = "", made_up: int = 0) -> Measured[dict[str, float]]:
    return in_child(_list_and_plan, workspace=f"{folder}/workspace", run=run, uri=uri, endpoint=endpoint, keys=made_up)


def _list_and_plan(workspace: str, run: str, uri: str, endpoint: str, keys: int) -> dict[str, float]:
    """Go through the source once, then plan it; seconds of both."""
    import time

    from vouch_labels.tasks.plan.ledger import Ledger
    from vouch_labels.tasks.plan.plan import plan
    from vouch_labels.tasks.store.local import LocalStore

    store = LocalStore(Path(workspace))
    started = time.perf_counter()
    seen = sum(1 for _ in _source(uri, endpoint, keys))
    listed = time.perf_counter()
    with Ledger.load(store, run) as ledger:
        plan(_source(uri, endpoint, keys), store, run, ledger, SHARD_SIZE)
        if ledger.count() != seen:
            raise RuntimeError(f"{ledger.count()} of {seen} keys were planned")
    return {"listing_seconds": listed - started, "planning_seconds": time.perf_counter() - listed}


def _source(uri: str, endpoint: str, keys: int) -> "Iterator[ImageRef]":
    from vouch_labels.schemas.campaign import S3Options, Source
    from vouch_labels.schemas.records import ImageRef
    from vouch_labels.tasks.plan.plan import list_source
    from vouch_labels.tasks.store.open import open_store

    if keys:
        # In an order that is not that of the keys, as from several listings joined.
        return (ImageRef(f"camera/{number * 7_919 % keys:09d}.jpg", f"{number:032x}", 1000) for number in range(keys))
    options = S3Options(endpoint_url=endpoint, path_style=True, checksums="when_required") if endpoint else S3Options()
    source = Source(uri=uri, s3=options)
    return list_source(source, open_store(source))


def _fill_folder(folder: str, keys: int) -> int:
    """Make files without content: a listing does not read it, and disks take long to give its blocks back."""
    for number in range(keys):
        path = Path(folder) / f"{number // PER_FOLDER:04d}" / f"{number:09d}.jpg"
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    return keys
