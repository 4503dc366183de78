"""How runs come through kills, full disks and bad stores: the same bytes in the end, no orphan, a lock that is free."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import Field

from benchmarks.campaigns import Options, client_of, draw_pictures
from benchmarks.fault_runs import (
    KINDS,
    Ended,
    FaultyProxy,
    campaign_in,
    content_of,
    environment_of,
    lock_is_free,
    moment,
    run,
    same_content,
    started,
    timeline,
)
from benchmarks.harness import ROOT, Table, seconds
from vouch_labels.schemas.campaign import S3Options, Strict
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_uri

SIGNALS: Final = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
PER_CAMPAIGN: Final = 10
"""Signals that one campaign gets before it is run to its end."""
OWN_SERVER_EVERY: Final = 4
"""Of so many campaigns one brings Prefect's server itself; the others share one."""
LOCAL_SHARD_SIZE: Final = 2
PAGE: Final = 4096
BUCKET_SHARD_SIZE: Final = 8
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


class Counts(Strict):
    """How often each fault is tried."""

    kills: int = Field(20, description="SIGKILLs that meet a run at work.")
    terms: int = Field(5, description="SIGTERMs.")
    interrupts: int = Field(5, description="SIGINTs.")
    levels: int = Field(10, description="Levels at which the disk is full.")
    images: int = Field(60, description="Images of each campaign.")
    delay_s: float = Field(0.2, description="Seconds that a delayed answer of the S3 server is late.")

    @classmethod
    def of(cls, options: Options) -> "Counts":
        """Those of an option of the command."""
        if options.quick:
            return cls(kills=1, terms=1, interrupts=1, levels=1, images=8, delay_s=0.01)
        return cls(kills=100, terms=30, interrupts=30, delay_s=3) if options.full else cls()


class Record(Strict):
    """What came of one campaign under one fault."""

    fault: str = Field(description="Which; records of the same one are added up.")
    times: int = Field(description="Runs that met it.")
    as_said: int = Field(description="Of them, those that ended with an exit code that is documented for it.")
    free: int = Field(description="Of them, those after which the lock could be had at once.")
    orphans: int = Field(description="Processes that were left when their run had ended.")
    same: bool = Field(description="Whether the workspace holds the same bytes as an undisturbed one in the end.")
    runs: int = Field(description="Runs until then, those that met the fault included.")
    seconds: float = Field(0.0, description="Of the runs that met it, where it does not end them.")
    undisturbed_s: float = Field(0.0, description="Of a run without it.")
    spoilt: int = Field(0, description="Requests that were spoilt.")
    requests: int = Field(0, description="Requests in all.")


class Journal:
    """A file with a line a campaign that was measured."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self._path = path
        self._kept: dict[str, Record] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, record = line.partition("\t")
                self._kept[name] = Record.model_validate_json(record)

    def get(self, name: str, measure: Callable[[], Record]) -> Record:
        """Give the record of this name, which is measured unless it was."""
        if name not in self._kept:
            self._kept[name] = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{name}\t{self._kept[name].model_dump_json()}\n")
        return self._kept[name]


def measure(options: Options) -> Table:
    """Disturb runs, run them to their end, and compare.

    VOUCH_FAULTS names a file that keeps what is done: then an interrupted measurement goes on where it stopped.
    """
    counts, kept = Counts.of(options), os.environ.get("VOUCH_FAULTS")
    with tempfile.TemporaryDirectory(prefix="vouch-faults-") as name, prefect_api(Path(name) / "server") as api:
        folder = Path(name)
        journal = Journal(Path(kept) if kept else folder / "journal")
        records = list(local_faults(folder, counts, journal, api))
        endpoint = os.environ.get("S3_TEST_ENDPOINT")
        if endpoint:
            records += bucket_faults(folder, counts, journal, api, endpoint)
    return _table(records, counts)


@contextmanager
def prefect_api(home: Path) -> Iterator[str]:
    """Start a Prefect server for many runs; yields its address."""
    from vouch_labels.flows.prefect_server import prefect_server, prepare_environment

    prepare_environment()
    os.environ["PREFECT_HOME"] = str(home)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)
    from prefect.settings import PREFECT_API_URL

    with prefect_server():
        yield str(PREFECT_API_URL.value())


def _table(records: list[Record], counts: Counts) -> Table:
    groups = {fault: list(group) for fault, group in groupby(records, lambda record: record.fault)}
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for fault, group in groups.items():
        times = sum(record.times for record in group)
        same = sum(record.same for record in group)
        orphans = sum(record.orphans for record in group)
        said, free = sum(record.as_said for record in group), sum(record.free for record in group)
        taken, undisturbed = sum(record.seconds for record in group), sum(record.undisturbed_s for record in group)
        spoilt, requests = sum(record.spoilt for record in group), sum(record.requests for record in group)
        rows.append(
            [
                fault,
                str(times),
                f"{said} of {times}",
                f"{free} of {times}",
                str(orphans),
                f"{same} of {len(group)}",
                str(sum(record.runs for record in group)),
                f"{seconds(taken)}, {seconds(undisturbed)} without" if taken else "",
                f"{spoilt} of {requests}" if requests else "",
            ]
        )
        name = fault.replace(",", "").replace(" ", "_")
        figures |= {
            f"{name}_times": float(times),
            f"{name}_as_said": float(said),
            f"{name}_lock_free": float(free),
            f"{name}_orphans": float(orphans),
            f"{name}_same_campaigns": float(same),
            f"{name}_campaigns": float(len(group)),
        }
        if taken:
            figures |= {f"{name}_seconds": taken, f"{name}_undisturbed_seconds": undisturbed}
    return Table(
        title="runs that are killed, or meet full disks and bad stores",
        columns=[
            "",
            "met",
            "ended as documented",
            "lock free at once",
            "orphans",
            "same bytes in the end",
            "runs",
            "time",
            "requests spoilt",
        ],
        rows=rows,
        notes=[
            f"Campaigns of {counts.images} small images in shards of {LOCAL_SHARD_SIZE}, models without weights. "
            "Signals come at random moments of `vouch run`, three in four of them while it works, up to "
            f"{PER_CAMPAIGN} a campaign; one campaign in {OWN_SERVER_EVERY} brings Prefect's server itself.",
            "Met: runs that the fault met; a signal after the end counts for nothing. The last run of a campaign is "
            "undisturbed; then every object that plans, markers and exports name is compared with an undisturbed "
            "workspace's, the time in the export left out.",
            "Orphans: processes of a run, found by a variable of its environment, that are left two minutes after it.",
            "Full disk: in memory, of a share of what the workspace takes; it grows before the second run. Where only "
            "files limited in size are named, no disk could be mounted.",
            f"Requests spoilt: {', '.join(KINDS)} (by {counts.delay_s:g} s), each as often as the others where a "
            "request can have it; source and workspace lie behind the same proxy.",
            "Other work ran on the machine meanwhile: times compare with each other only.",
        ],
        figures=figures,
    )


class Undisturbed(NamedTuple):
    """A run that nothing happened to, and what it left."""

    images: Path
    api: str
    phases: dict[str, float]
    workspace: Path
    content: dict[str, bytes]


def local_faults(folder: Path, counts: Counts, journal: Journal, api: str) -> Iterator[Record]:
    """Measure every fault as often as the counts say; `api` is the address of a Prefect server."""
    images, workspace = folder / "images", folder / "straight/workspace"
    draw_pictures(images, counts.images)
    campaign = campaign_in(folder / "straight", str(images), str(workspace), LOCAL_SHARD_SIZE)
    phases = timeline(campaign, environment_of(folder / "straight", api))
    straight = Undisturbed(images, api, phases, workspace, content_of(LocalStore(workspace)))
    for fault, times in zip(SIGNALS, (counts.kills, counts.terms, counts.interrupts), strict=True):
        for first in range(0, times, PER_CAMPAIGN):
            most = min(PER_CAMPAIGN, times - first)
            name = f"{fault} {first} to {first + most}"
            yield journal.get(name, partial(_signals, folder / name.replace(" ", "-"), fault, first, most, straight))
    for level in range(counts.levels):
        name = f"full disk {level + 1} of {counts.levels}"
        share = (level + 1) / (counts.levels + 1)
        yield journal.get(name, partial(_full_disk, folder / name.replace(" ", "-"), share, straight))


def _signals(place: Path, fault: str, first: int, most: int, straight: Undisturbed) -> Record:
    """Send signals at random moments of a campaign's runs, then run it to its end."""
    number = SIGNALS[fault]
    own_server = first // PER_CAMPAIGN % OWN_SERVER_EVERY == OWN_SERVER_EVERY - 1
    campaign = campaign_in(place, str(straight.images), str(place / "workspace"), LOCAL_SHARD_SIZE)
    environment = environment_of(place, None if own_server else straight.api)
    chance = random.Random(f"{fault} {first}")
    times = as_said = free = orphans = runs = 0
    done = False
    # A run that ends before its moment is none of those that count; the later ones have less to do.
    while times < most and runs < 4 * most:
        phase, after_s = moment(chance, straight.phases, done)
        ended = run(campaign, environment, number=number, phase=phase, after_s=after_s)
        runs += 1
        orphans += ended.orphans
        done = done or not ended.met
        if ended.met:
            times += 1
            # In the interpreter's first and last steps the signal itself ends it.
            as_said += ended.code in (-number, 128 + number)
            free += lock_is_free(campaign)
    last = run(campaign, environment)
    same = last.code == 0 and same_content(content_of(LocalStore(place / "workspace")), straight.content)
    return Record(fault=fault, times=times, as_said=as_said, free=free, orphans=orphans, same=same, runs=runs + 1)


def _full_disk(place: Path, share: float, straight: Undisturbed) -> Record:
    """Run on a disk that is full when a share of the workspace is written, and again when there is space.

    Where no disk can be mounted (it takes root), no file may be larger than a share of the largest one, which a store
    meets as it meets a full disk.
    """
    disk = place / "disk"
    disk.mkdir(parents=True)
    campaign = campaign_in(place, str(straight.images), str(disk / "workspace"), LOCAL_SHARD_SIZE)
    environment = environment_of(place, straight.api)
    mounted = _mount(disk, int(_taken(straight.workspace) * share))
    largest = max(map(len, straight.content.values()))
    try:
        ended = run(campaign, environment, file_bytes=None if mounted else int(largest * share))
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)  # noqa: S603, S607 - only where it was mounted
        free = lock_is_free(campaign)
        again = run(campaign, environment)
        same = again.code == 0 and same_content(content_of(LocalStore(disk / "workspace")), straight.content)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)  # noqa: S603, S607 - as above
    return Record(
        fault="full disk" if mounted else "files limited in size",
        times=int(ended.code != 0),
        as_said=int(ended.code == 1 and "unexpected" not in ended.words),
        free=int(free),
        orphans=ended.orphans + again.orphans,
        same=same,
        runs=2,
    )


def _taken(folder: Path) -> int:
    """Bytes of the pages that the files of a folder take."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def _mount(folder: Path, size: int) -> bool:
    """Whether a disk in memory of so many bytes could be mounted there."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0  # noqa: S603 - the words are ours


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
        return campaign_in(
            self._folder / name, f"{place}/{source}", f"{place}/{name}", BUCKET_SHARD_SIZE, _options(endpoint)
        )

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
