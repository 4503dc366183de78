"""What the driver of a Ray cluster costs a shard, its memory, how busy it keeps workers, and two workers at work.

All of it on one machine: workers without models take none of it, and network and GPUs are not in these figures.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from benchmarks.campaigns import Options, copy_samples, sample_classes, write_campaign
from benchmarks.harness import Table, in_child, mebibytes, seconds
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.policy import Group, Policy
from vouch_labels.schemas.records import ImageRef, ShardRef
from vouch_labels.tasks.cluster import Attempt, Cluster
from vouch_labels.tasks.nodes import Answer, Description, Size, Start, Worker
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import plan_listed, take_listing
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.events import Progress, ignore
from vouch_labels.tasks.shard.shard import ShardSettings, process_shard
from vouch_labels.tasks.store.local import LocalStore

WORKERS: Final = 8
COST_SHARDS: Final = 10_000
COST_LIMIT_MS: Final = 2.0
MEMORY_SHARDS: Final = (1_000, 100_000, 1_000_000)
MEMORY_LIMIT_MIB: Final = 300
PROCESSED: Final = 20_000
"""Shards of a plan that are processed at most: more of them hold no more memory."""
SLEEP_S: Final = 0.5
SLEEP_SHARDS: Final = 320
EFFICIENCY: Final = 0.95
IMAGES: Final = 96
SHARD_SIZE: Final = 8


class Idle(Worker):
    """Has no models and does nothing: a shard is done at once, with three reports of progress."""

    def ready(self) -> Description:
        """Describe nothing."""
        return Description({}, {}, "")

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        """Report twice, and answer."""
        del shard
        yield Progress(500, 0, 0, 0)
        yield Progress(500, 0, 0, 0)
        yield Answer(1000)


class Sleeping(Idle):
    """Takes as long for a shard as a fast GPU would for a small one."""

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        """Sleep, and answer."""
        del shard
        time.sleep(SLEEP_S)
        yield Answer(1000)


class Timed(Worker):
    """The worker itself, which notes its CPU time."""

    def process(self, shard: str) -> Iterator[Progress | Answer]:
        """Process a shard, and note what it took."""
        before = time.process_time()
        for item in super().process(shard):
            if isinstance(item, Answer):
                folder = Path(self._start.settings.campaign.workspace.uri)
                (folder / f"cpu-{os.getpid()}-{shard}").write_text(str(time.process_time() - before), encoding="utf-8")
            yield item


@dataclass
class _Window:
    """The time in which all workers were ready, and what was done in it."""

    workers: int
    began: float = 0.0
    ended: float = 0.0
    shards: int = 0
    images: int = 0
    seen: int = field(default=0)

    def note(self, driver: Cluster, attempt: Attempt) -> None:
        now = time.perf_counter()
        if self.began:
            self.shards += 1
            self.images += attempt.images
            self.ended = now
        elif driver.most == self.workers:
            # Once more round all of them, so that each has two.
            self.seen += 1
            self.began = now if self.seen > 2 * self.workers else 0.0


def measure(options: Options) -> Table:
    """Measure all but plans."""
    shards = 300 if options.quick else COST_SHARDS
    cost = in_child(_cost, shards=shards).value
    efficiency = in_child(_efficiency, shards=60 if options.quick else SLEEP_SHARDS).value
    images = 16 if options.quick else IMAGES
    alone, together = (in_child(_label, images=images, workers=workers).value for workers in (0, 2))
    what = f"{shards:,} shards, {WORKERS} workers"
    rows = [[f"driver, CPU time a shard (limit {COST_LIMIT_MS:g} ms)", f"{cost * 1e3:.2f} ms", what]]
    what = f"{WORKERS} workers, shards of {SLEEP_S} s"
    rows += [[f"share of the time in which workers work (limit {EFFICIENCY:g})", f"{efficiency:.3f}", what]]
    for name, found in (("one process, two threads", alone), ("two workers, a thread each", together)):
        cells = [f"{found['rate']:.2f} images/s", f"{seconds(found['cpu'])} CPU an image"]
        rows.append([f"bundled models, {name}", *cells])
    return Table(
        title="a Ray cluster's driver, and two workers on one machine",
        columns=["", "", ""],
        rows=rows,
        notes=[
            "The driver as `vouch run` has it, on Ray on the loopback interface; CPU time of its whole process, Ray's "
            "threads in it. Workers without models answer at once, with two reports of progress a shard.",
            "Bundled models: images/s while all workers are ready. Other programs used the machine: threads that wait "
            "for each other spin then, single ones do not, so the last two rows are not those of a calm machine.",
        ],
        figures={
            "driver_cpu_ms_a_shard": cost * 1e3,
            "efficiency": efficiency,
            **{f"alone_{name}": value for name, value in alone.items()},
            **{f"two_workers_{name}": value for name, value in together.items()},
        },
    )  # fmt: skip


def measure_plans(options: Options) -> Table:
    """Measure plans of many shards, in the process that hands them out."""
    sizes = (100, 2_000) if options.quick else MEMORY_SHARDS
    found = {size: in_child(_plan, shards=size) for size in sizes}
    least = found[sizes[0]].peak_bytes
    return Table(
        title=f"a plan of many shards and a Ray cluster's driver in one process (limit {MEMORY_LIMIT_MIB} MiB)",
        columns=["shards", "processed", "peak memory", "of the smallest", "planning, CPU time a shard"],
        rows=[
            [
                f"{size:,}", f"{min(size, PROCESSED):,}", mebibytes(one.peak_bytes), f"{one.peak_bytes / least:.2f}",
                f"{one.value / size * 1e3:.2f} ms",
            ]
            for size, one in found.items()
        ],
        notes=[
            "A source of as many images is planned, a shard an image, and the first shards are processed by one worker "
            "without models; Python and Ray are in the memory. The shards' own tables are not written, since they are "
            "as many small files; the generation's record and its table are.",
        ],
        figures={f"peak_bytes_{size}": float(one.peak_bytes) for size, one in found.items()},
    )  # fmt: skip


def _driver(folder: Path, workers: int, kind: type[Worker]) -> Cluster:
    campaign = load_campaign(write_campaign(folder, folder, run={"runner": "ray", "workers": workers}))
    policy = Policy(version="none", basis="user_thresholds", groups=(Group(name="cat", classes=("cat",)),))
    start = Start(ShardSettings(campaign, policy), "cpu", "", "")
    return Cluster(start, Size(1, 0), ignore, kind)


def _refs(count: int) -> Iterator[ShardRef]:
    return (ShardRef(id=f"{number:016x}", count=1000, first_key=f"{number:09d}.jpg") for number in range(count))


def _cost(shards: int) -> float:
    """CPU seconds of the driver's process a shard, after as many shards as start the workers."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name, _driver(Path(name), WORKERS, Idle) as driver:
        driver.describe()
        began, counted = 0.0, 0  # once all workers are ready
        for attempt in driver.work(_endless(), 10**9, lambda: None):
            assert not attempt.error
            if driver.most < WORKERS:
                continue
            began = began or time.process_time()
            counted += 1
            if counted > shards:
                break
        return (time.process_time() - began) / shards


def _endless() -> Iterator[ShardRef]:
    return _refs(10**9)


class _NoTables(LocalStore):
    """A folder to which the tables of shards' images are not written, since they are as many small files."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write all else."""
        return key.endswith(".parquet") or super().put(key, data, if_absent=if_absent)


def _plan(shards: int) -> float:
    """CPU time of planning as many shards; the first ones are then processed, and the peak is that of the process."""
    refs = (ImageRef(f"{number:09d}.jpg", "etag", 1000) for number in range(shards))
    with (
        tempfile.TemporaryDirectory(prefix="vouch-bench-") as name,
        Ledger.load(_NoTables(Path(name)), "main") as ledger,
    ):
        began = time.process_time()
        take_listing(refs, ledger)
        with patch("vouch_labels.tasks.plan.plan._table_bytes", lambda _: b""):
            plan_listed(_NoTables(Path(name)), "main", ledger, 1)
        due, done = ledger.settle_due(()), 0
        took = time.process_time() - began
        if due.shards != shards:
            raise RuntimeError(f"{due.shards} of {shards} shards are due")
        with _driver(Path(name), 1, Idle) as driver:
            driver.describe()
            for attempt in driver.work(ledger.due(), due.shards, lambda: None):
                done += not attempt.error
                if done == min(shards, PROCESSED):
                    return took
    raise RuntimeError(f"only {done} of {shards} shards were done")


def _efficiency(shards: int) -> float:
    """Share of the time in which workers that sleep are asleep."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name, _driver(Path(name), WORKERS, Sleeping) as driver:
        driver.describe()
        window = _Window(WORKERS)
        for attempt in driver.work(_endless(), 10**9, lambda: None):
            window.note(driver, attempt)
            if window.shards >= shards:
                break
    return window.shards * SLEEP_S / (WORKERS * (window.ended - window.began))


def _label(images: int, workers: int) -> dict[str, float]:
    """Label samples by the bundled models: images a second, and CPU seconds an image."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        copy_samples(folder / "images", images)
        sections = {"runner": "ray", "workers": workers, "cpus_per_worker": 1} if workers else {}
        campaign = load_campaign(
            write_campaign(
                folder, folder / "images", classes=sample_classes(),
                models={"device": "cpu", "cpu_threads": 1 if workers else 2},
                run={"shard_size": SHARD_SIZE if images > SHARD_SIZE * 4 else 2} | sections,
            )
        )  # fmt: skip
        with patch("vouch_labels.tasks.run.Cluster", partial(Cluster, worker=Timed)), CampaignRun(campaign) as run:
            run.plan()
            if run.cluster is None:
                began, cpu = time.perf_counter(), time.process_time()
                done = sum(process_shard(shard.id, run.settings).counts.images for shard in run.pending())
                took = time.perf_counter() - began
                return {"rate": done / took, "cpu": (time.process_time() - cpu) / done}
            window, done = _Window(workers, seen=2 * workers), 0
            for attempt in run.cluster.work(run.pending(), run.due, run.check_lock):
                window.note(run.cluster, attempt)
                done += attempt.images
        spent = sum(float(path.read_text(encoding="utf-8")) for path in (folder / "workspace").glob("cpu-*"))
        took = window.ended - window.began
        return {"rate": window.images / took if took else 0.0, "cpu": spent / done}
