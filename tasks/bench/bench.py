"""Benchmarks how fast this machine labels a user's images with the models of a campaign, and names the bottleneck.

Every step of `process_shard` is timed from outside.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

from vouch_labels.schemas.campaign import Campaign, Workspace
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import BenchReport, StepTime
from vouch_labels.schemas.records import ImageRef, ShardCounts
from vouch_labels.tasks.acquire import pace_of
from vouch_labels.tasks.bench.timing import StageTimer, gpu_busy, peak_bytes, repeated, settled
from vouch_labels.tasks.models.runtime import choose_runtime
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import list_source, plan
from vouch_labels.tasks.policy import default_policy
from vouch_labels.tasks.shard.pipeline import load_pipeline
from vouch_labels.tasks.shard.shard import BATCH_IMAGES_ON_GPU, ShardSettings, process_shard
from vouch_labels.tasks.store.open import check_readable, open_store
from vouch_labels.tasks.store.source import open_source

WARM_UP: Final = 8
"""Images that warm a CPU up."""
IMAGES: Final = 96
IMAGES_ON_GPU: Final = 6 * BATCH_IMAGES_ON_GPU
"""Several batches, since a GPU's pipeline stages work on as many at the same time."""
SECONDS: Final = 60.0
"""About what the measured part may take."""
LEAST: Final = 4

STEPS: Final = ("acquire", "detect", "segment", "score", "route", "tables", "write", "rest")
FETCHING: Final = "fetching"
DECODING: Final = "decoding"

WAITS: Final = 0.15
"""Share of the time that is spent waiting for images from which on that is the bottleneck."""
IDLE: Final = 0.60
"""Share of the time in which a GPU computes below which the host keeps it waiting."""
TAKEN: Final = 0.75
"""Share of the cores that others want from which on they are the bottleneck: with several of torch's threads, each
waits for the one that has lost its core (docs/performance.md, threads on a CPU, has figures)."""
_MODELS: Final = {"detect": "detector", "segment": "segmenter", "score": "scorer"}
_SMALLER: Final = {
    "detect": "a smaller detector checkpoint, or fewer prompts where they take several passes, would help most",
    "segment": "a smaller segmenter checkpoint would help most",
    "score": "a smaller scorer checkpoint, or models.scorer.presence: false, would help most",
}


class _Pass(NamedTuple):
    seconds: float
    counts: ShardCounts


def bench(campaign: Campaign, most: int | None = None) -> BenchReport:
    """Label the first images of a campaign's source in a workspace of their own, and measure.

    On a GPU the first passes, in which batches grow and kernels are compiled, do not count; and the images of a folder
    that has fewer are measured several times over. The campaign's paths are absolute; its workspace is neither read nor
    written. `most` images are measured, fewer on slow machines; None: IMAGES, on a GPU IMAGES_ON_GPU.

    Raises:
        UserError: The source holds no image, or the models cannot be used.
        StoreAccessError: The source cannot be read.
    """
    source = open_source(campaign.source, campaign.workspace, keep=False)
    check_readable(source)
    runtime = choose_runtime(campaign.models)
    on_gpu = runtime.device.startswith("cuda")
    most = most or (IMAGES_ON_GPU if on_gpu else IMAGES)
    refs: Sequence[ImageRef] = list(islice(list_source(campaign.source, source, workspace=campaign.workspace), most))
    if not refs:
        raise UserError(f"{source.uri} holds no image to measure with; name another source, or --images FOLDER")
    load = os.getloadavg()[0]
    distinct = len(refs)
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        measured = campaign
        if on_gpu:
            measured, refs = repeated(campaign, refs, most, Path(folder) / "images")
        runs = _Runs(measured, Path(folder))
        warm = refs[: BATCH_IMAGES_ON_GPU if on_gpu else WARM_UP]
        if on_gpu:
            runs.run(warm)
        timed = settled(lambda: runs.run(warm)) if on_gpu else runs.run(warm)
        speed = len(warm) / timed.seconds
        refs = refs[: max(LEAST, int(speed * SECONDS))]
        busy = None
        if on_gpu:
            runs.run(refs)
            busy = settled(lambda: runs.busy(refs))
        return _report(campaign, refs, min(distinct, len(refs)), runs, busy, load)


class _Runs:
    """Labels some images again and again, each time as if it were the first."""

    def __init__(self, campaign: Campaign, folder: Path) -> None:
        self._campaign = campaign
        self._folder = folder
        self._number = 0

    def run(self, refs: Sequence[ImageRef], timer: StageTimer | None = None) -> _Pass:
        """Label; with a timer, one step after the other."""
        shard, settings = self._planned(refs, in_turn=timer is not None)
        process: Any = process_shard if timer is None else timer.wrap("rest", process_shard)
        started = time.perf_counter()
        marker = process(shard, settings)
        return _Pass(time.perf_counter() - started, marker.counts)

    def busy(self, refs: Sequence[ImageRef]) -> float:
        """Share of a run's time in which the GPU computes."""
        shard, settings = self._planned(refs, in_turn=False)
        return gpu_busy(lambda: process_shard(shard, settings))

    def _planned(self, refs: Sequence[ImageRef], in_turn: bool) -> tuple[str, ShardSettings]:
        """A shard of a workspace of its own; planning it and loading the models are no part of the speed."""
        self._number += 1
        settings = self._settings(in_turn)
        workspace = open_store(settings.campaign.workspace)
        with Ledger.load(workspace, settings.run) as ledger:
            planned = plan(refs, workspace, settings.run, ledger, len(refs))
        if planned is None:
            raise UserError("the images of the source have no keys")
        (shard,) = planned.shards
        load_pipeline(settings.campaign)
        return shard.id, settings

    def _settings(self, in_turn: bool) -> ShardSettings:
        models = self._campaign.models
        if in_turn and choose_runtime(models).device != "cpu":
            models = models.model_copy(update={"switched_off": (*models.switched_off, "overlap")})
        campaign = self._campaign.model_copy(
            update={"workspace": Workspace(uri=str(self._folder / str(self._number))), "models": models}
        )
        return ShardSettings(campaign, default_policy(campaign.classes, campaign.routing))


def _report(
    campaign: Campaign, refs: Sequence[ImageRef], distinct: int, runs: _Runs, busy: float | None, load: float
) -> BenchReport:
    import torch

    runtime = choose_runtime(campaign.models)

    def in_turn() -> tuple[_Pass, StageTimer]:
        timer = StageTimer()
        with timed_steps(timer):
            return runs.run(refs, timer), timer

    measured = settled(lambda: runs.run(refs)) if busy is not None else None
    timed, timer = settled(in_turn)
    measured = measured or timed
    whole = sum(timer.seconds.values())
    shares = {step: timer.seconds[step] / whole for step in STEPS}
    fetching, decoding = (timer.in_threads[name] * 1000 / len(refs) for name in (FETCHING, DECODING))
    threads = campaign.run.fetch_threads
    if threads == "auto":
        threads = pace_of(open_store(campaign.source).uri, campaign.source.s3.threads).threads
    return BenchReport(
        source=open_store(campaign.source).uri,
        images=len(refs),
        distinct=distinct,
        failed=measured.counts.failed,
        labels=measured.counts.labels,
        device=str(torch.cuda.get_device_name(runtime.device)) if busy is not None else runtime.device,
        precision=runtime.precision,
        engine=campaign.models.engine,
        cpu_threads=torch.get_num_threads(),
        fetch_threads=threads,
        seconds=measured.seconds,
        images_per_second=len(refs) / measured.seconds,
        steps=[StepTime(name=step, seconds=timer.seconds[step], share=shares[step]) for step in STEPS],
        fetching_ms=fetching,
        decoding_ms=decoding,
        gpu_busy=busy,
        peak_bytes=peak_bytes(),
        gpu_peak_bytes=torch.cuda.max_memory_reserved(runtime.device) if busy is not None else None,
        load_before=load,
        bottleneck=bottleneck(
            shares,
            fetching_ms=fetching,
            decoding_ms=decoding,
            gpu_busy=busy,
            fetch_threads=threads,
            # One thread shares its core, and no more.
            taken_cores=load / (os.cpu_count() or 1) if torch.get_num_threads() > 1 else 0.0,
        ),
    )


@contextmanager
def timed_steps(timer: StageTimer, synchronize: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Time what process_shard calls while the block runs.

    acquire is the waiting for decoded images and for plans; the threads that fetch and decode them beside the models
    are summed under FETCHING and DECODING. tables is laying out rows and counting them, write the parts and the
    marker. Wrap process_shard itself as `rest`. The steps must go on in one thread (switched_off: overlap).

    The time of the batches that models run, with what prepares them and takes them apart, counts as the step's
    `forward` as well; `synchronize` waits until the device has done what it was given.
    """
    from vouch_labels.tasks import acquire as acquiring
    from vouch_labels.tasks.acquire import acquire
    from vouch_labels.tasks.decode import decode
    from vouch_labels.tasks.detect import Detect
    from vouch_labels.tasks.models.batching import Batcher
    from vouch_labels.tasks.presence import Presence
    from vouch_labels.tasks.score import Score
    from vouch_labels.tasks.segment import Segment
    from vouch_labels.tasks.shard import shard, steps
    from vouch_labels.tasks.store.local import LocalStore
    from vouch_labels.tasks.store.s3 import S3Store

    timed: dict[str, list[tuple[object, str]]] = {
        "acquire": [(shard, "read_plan"), (shard, "read_marker"), (shard, "best_marker")],
        "detect": [(Detect, "look"), (Detect, "decide")],
        "segment": [(Segment, "__call__")],
        "score": [(Score, "__call__"), (Presence, "__call__")],
        "route": [(steps, "route")],
        "tables": [(steps, "batch_tables"), (shard, "join_tables"), (shard, "count")],
        "write": [(shard, "write_part"), (shard, "write_marker")],
    }
    with ExitStack() as stack:
        for step, places in timed.items():
            for owner, name in places:
                stack.enter_context(mock.patch.object(owner, name, timer.wrap(step, getattr(owner, name))))
        stack.enter_context(mock.patch.object(shard, "acquire", timer.wrap_generator("acquire", acquire)))
        stack.enter_context(mock.patch.object(acquiring, "decode", timer.wrap_in_threads(DECODING, decode)))
        stack.enter_context(mock.patch.object(Batcher, "run", timer.wrap_forward(Batcher.run, synchronize)))
        for store in (LocalStore, S3Store):
            stack.enter_context(mock.patch.object(store, "get", timer.wrap_in_threads(FETCHING, store.get)))
        yield


def bottleneck(
    shares: Mapping[str, float],
    *,
    fetching_ms: float,
    decoding_ms: float,
    gpu_busy: float | None,
    fetch_threads: int,
    taken_cores: float,
) -> str:
    """Name the bottleneck.

    `shares` are of the time of all steps; milliseconds are one thread's for an image; `gpu_busy`, None on a CPU, is the
    share of the time in which the GPU computes, `taken_cores` that of the cores that other processes wanted before
    (above 1 they had to wait).
    """
    if gpu_busy is None and taken_cores >= TAKEN:
        return (
            f"other programs: they wanted {taken_cores:.1f} times the cores that this machine has; end them, or set "
            "models.cpu_threads: 1, since threads that wait for each other suffer most"
        )
    if shares["acquire"] >= WAITS:
        return _waiting(shares["acquire"], fetching_ms, decoding_ms, fetch_threads)
    step = max(shares, key=lambda name: shares[name])
    taken = f"{_MODELS.get(step, step)}: {shares[step]:.0%} of the time"
    if step == "write":
        return f"{taken}; the workspace is slow: a faster disk, a store nearby, or a larger run.shard_size would help"
    if step not in _MODELS:
        return f"{taken}, beside the models; faster CPU cores would help"
    if gpu_busy is None:
        return f"{taken}; a GPU would help most"
    if gpu_busy < IDLE:
        return f"{taken}, and the GPU computes only {gpu_busy:.0%} of it all; faster CPU cores, or more, would help"
    return f"{taken}, and the GPU computes {gpu_busy:.0%} of it all; {_SMALLER[step]}, or a faster GPU"


def _waiting(share: float, fetching_ms: float, decoding_ms: float, threads: int) -> str:
    if decoding_ms >= fetching_ms:
        return f"decode: {share:.0%} of the time is waiting for images to be decoded; add CPU workers (cores)"
    return (
        f"fetch: {share:.0%} of the time is waiting for images from the source; raise run.fetch_threads "
        f"(now {threads}), or work closer to the storage"
    )
