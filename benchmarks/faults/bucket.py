"""Bad answers, stale listings, wrong ETags and two runs at once, on workspaces in a bucket."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.campaigns import client_of, draw_pictures
from benchmarks.faults.proxy import KINDS, FaultyProxy
from benchmarks.faults.records import Counts, Journal, Record
from benchmarks.faults.runs import (
    Ended,
    campaign_in,
    content_of,
    environment_of,
    lock_is_free,
    run,
    same_content,
    started,
)
from benchmarks.harness import ROOT
from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.store.open import open_uri

SHARD_SIZE: Final = 8
RATES: Final = (0.05, 0.2)
MOST_RUNS: Final = 4
"""Runs after which a workspace has to be as an undisturbed one."""

WITHOUT_LOCK: Final = """
import sys
from pathlib import Path
from benchmarks.campaigns import run_bare
from vouch_labels.schemas.errors import WorkspaceBusyError
from vouch_labels.tasks.store.lock import WorkspaceLock

WorkspaceLock.__enter__ = lambda self: self
WorkspaceLock.__exit__ = lambda self, *_: None
try:
    run_bare(Path(sys.argv[1]))
except WorkspaceBusyError:
    sys.exit(2)
"""
"""A run that takes no lock, as two do where a store or a clock deceives them."""
TOLD: Final = "another process has planned"
"""A run is told so, with exit code 2, when it finds a plan that it has not seen."""


def bucket_faults(folder: Path, counts: Counts, journal: Journal, api: str, endpoint: str) -> Iterator[Record]:
    """Measure every fault; `api` is the address of a Prefect server, `endpoint` that of an S3 server."""
    with _bucket(endpoint) as name, FaultyProxy(endpoint, 0) as honest:
        bucket = Bucket(folder, endpoint, name, counts, environment_of(folder, api))
        first = run(bucket.campaign("straight", honest.endpoint), bucket.environment)
        if first.code:
            raise RuntimeError(f"the undisturbed run failed:\n{first.words}")
        straight = Straight(bucket, honest.endpoint, first.seconds, bucket.content("straight"))
        cases: dict[str, Callable[[], Record]] = {
            f"S3, {rate:.0%} of requests spoilt": partial(_bad_answers, straight, rate) for rate in RATES
        }
        cases |= {
            "S3, wrong ETags": partial(_bad_answers, straight, RATES[-1], ("wrong ETag",)),
            "S3, stale listings": partial(_stale, straight),
            "S3, two runs at once": partial(_two, straight),
            "S3, two runs without a lock": partial(_without_lock, straight),
        }
        for fault, measure in cases.items():
            yield journal.get(fault, measure).model_copy(update={"fault": fault})


class Bucket:
    """A bucket with images, and campaigns over them."""

    def __init__(self, folder: Path, endpoint: str, bucket: str, counts: Counts, environment: dict[str, str]) -> None:
        """Put all images under `images`, and three in four of them under `growing`."""
        self.environment, self.counts, self.endpoint = environment, counts, endpoint
        self._folder, self._bucket = folder, bucket
        self._client = client_of(endpoint)
        draw_pictures(folder / "images-of-bucket", counts.images)
        files = sorted((folder / "images-of-bucket").rglob("*.jpg"))
        self._later = files[-(len(files) // 4) :]
        for path in files:
            self._put(path, "images")
            if path not in self._later:
                self._put(path, "growing")

    def _put(self, path: Path, prefix: str) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"{prefix}/{path.name}", Body=path.read_bytes())

    def grow(self) -> None:
        """Put the rest of the images under `growing`."""
        for path in self._later:
            self._put(path, "growing")

    def campaign(self, name: str, endpoint: str, source: str = "images") -> Path:
        """Write a campaign with the workspace `name`, which speaks to this endpoint."""
        place = f"s3://{self._bucket}"
        return campaign_in(self._folder / name, f"{place}/{source}", f"{place}/{name}", SHARD_SIZE, _options(endpoint))

    def content(self, name: str) -> dict[str, bytes]:
        """What a workspace holds, asked of the server itself."""
        return content_of(open_uri(f"s3://{self._bucket}/{name}", _options(self.endpoint)))


class Straight(NamedTuple):
    """An undisturbed run in a bucket, and what it left."""

    bucket: Bucket
    endpoint: str
    """Of a proxy that spoils nothing: the way is as long as with one that does."""
    seconds: float
    content: dict[str, bytes]


def _options(endpoint: str) -> S3Options:
    return S3Options(endpoint_url=endpoint, path_style=True, region="us-east-1", checksums="when_required")


@contextmanager
def _bucket(endpoint: str) -> Iterator[str]:
    client, name = client_of(endpoint), f"vouch-faults-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    try:
        yield name
    finally:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for entry in page.get("Contents", ()):
                client.delete_object(Bucket=name, Key=entry["Key"])
        client.delete_bucket(Bucket=name)


def _bad_answers(straight: Straight, rate: float, kinds: tuple[str, ...] = KINDS) -> Record:
    """Run behind a proxy that spoils a share of all requests, until all is done."""
    bucket, name = straight.bucket, f"spoilt-{rate}-{len(kinds)}"
    ended: list[Ended] = []
    with FaultyProxy(bucket.endpoint, rate, kinds=kinds, delay_s=bucket.counts.delay_s) as proxy:
        campaign = bucket.campaign(name, proxy.endpoint)
        while len(ended) < MOST_RUNS and not (ended and same_content(bucket.content(name), straight.content)):
            ended.append(run(campaign, bucket.environment))
    return Record(
        fault="",
        times=len(ended),
        as_said=sum(one.code in (0, 1) and "unexpected" not in one.words for one in ended),
        free=int(lock_is_free(bucket.campaign(name, bucket.endpoint))) * len(ended),
        orphans=sum(one.orphans for one in ended),
        same=same_content(bucket.content(name), straight.content),
        runs=len(ended),
        seconds=sum(one.seconds for one in ended),
        undisturbed_s=straight.seconds,
        spoilt=sum(proxy.spoilt.values()),
        requests=proxy.requests,
    )


def _stale(straight: Straight) -> Record:
    """Run, add images, run while every listing is that of the time before, and once more."""
    bucket = straight.bucket
    with FaultyProxy(bucket.endpoint, 0) as late:
        honest = bucket.campaign("growing-straight", straight.endpoint, "growing")
        stale = bucket.campaign("growing-stale", late.endpoint, "growing")
        late.stale = True
        ended = [run(campaign, bucket.environment) for campaign in (honest, stale)]
        bucket.grow()
        ended += [run(campaign, bucket.environment) for campaign in (honest, stale)]
        late.stale = False
        ended.append(run(stale, bucket.environment))
    met = (ended[1], ended[3])
    return Record(
        fault="",
        times=len(met),
        as_said=sum(one.code == 0 or (one.code == UserError.exit_code and TOLD in one.words) for one in met),
        free=2 * int(lock_is_free(bucket.campaign("growing-stale", bucket.endpoint, "growing"))),
        orphans=sum(one.orphans for one in ended),
        same=same_content(bucket.content("growing-stale"), bucket.content("growing-straight")),
        runs=3,
    )


def _two(straight: Straight) -> Record:
    """Start two runs of one workspace: one does the work, the other is told so, or comes when all is done."""
    bucket = straight.bucket
    campaign = bucket.campaign("two", straight.endpoint)
    with ExitStack() as stack:
        two = [stack.enter_context(started(campaign, bucket.environment)) for _ in range(2)]
        words = [process.communicate()[1] for process in two]
    codes = sorted(process.returncode for process in two)
    refused = codes == [0, 2] and any("is in use by process" in text for text in words)
    return Record(
        fault="",
        times=2,
        as_said=2 * int(refused or codes == [0, 0]),
        free=2 * int(lock_is_free(campaign)),
        orphans=0,
        same=same_content(bucket.content("two"), straight.content),
        runs=2,
    )


def _without_lock(straight: Straight) -> Record:
    """Let two processes do the same work at once."""
    bucket = straight.bucket
    campaign = bucket.campaign("no-lock", straight.endpoint)
    words = [sys.executable, "-c", WITHOUT_LOCK, str(campaign)]
    with ExitStack() as stack:
        two = [
            stack.enter_context(subprocess.Popen(words, cwd=ROOT, env=bucket.environment | {"PYTHONPATH": str(ROOT)}))  # noqa: S603 - the words are ours
            for _ in range(2)
        ]
        codes = [process.wait() for process in two]
    return Record(
        fault="",
        times=2,
        as_said=2 * int(sorted(codes) in ([0, 0], [0, UserError.exit_code])),
        free=2 * int(lock_is_free(campaign)),
        orphans=0,
        same=same_content(bucket.content("no-lock"), straight.content),
        runs=2,
    )
