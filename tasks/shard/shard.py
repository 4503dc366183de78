"""Processes one shard: fetch, detect, segment, score, route, write; the marker is written last."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import VouchError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Marker, ShardCounts
from vouch_labels.schemas.tables import STAGES
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.acquire import DELETED, DENIED, Acquired, acquire
from vouch_labels.tasks.decode import NO_MEMORY
from vouch_labels.tasks.detect import Given
from vouch_labels.tasks.imported import read_given
from vouch_labels.tasks.plan.alike import read_alike
from vouch_labels.tasks.plan.ledger import read_plan
from vouch_labels.tasks.policy import coverage_of_run
from vouch_labels.tasks.shard.alike import Alike, Copy, with_copies
from vouch_labels.tasks.shard.events import OnEvent, Progress, ignore
from vouch_labels.tasks.shard.files import (
    count,
    markers_of,
    progress_of,
    read_marker,
    write_found,
    write_marker,
    write_part,
)
from vouch_labels.tasks.shard.numbers import write_numbers
from vouch_labels.tasks.shard.pipeline import Pipeline, load_pipeline, stages_fingerprint
from vouch_labels.tasks.shard.reuse import (
    KEPT_STAGES,
    Earlier,
    best_marker,
    read_earlier,
    reroute_shard,
    reusable_stages,
    with_found,
)
from vouch_labels.tasks.shard.steps import FOUND_OF, Work, join_tables, process_batches
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

BATCH_IMAGES = 32
BATCH_IMAGES_ON_GPU = 128
"""More images have more of one size among them, and the models' batches are of one size; a GPU is as soon through."""
FIRST_IMAGES_ON_GPU = 16
"""The first batch, small so that later pipeline stages start soon; each batch is twice the one before."""
BATCH_BYTES = 256 << 20
FEW_IMAGES = 4
"""Shards of fewer tell a bad image from a fault of the surroundings no better than a coin."""
_DENIED = f"fetch: {DENIED}"


@dataclass(frozen=True)
class ShardSettings:
    """Small and picklable, so that it can travel to another process or machine."""

    campaign: Campaign
    """With absolute paths, as load_campaign gives it."""
    policy: Policy
    """What decides over labels."""
    imported: str = ""
    """Hash of the table of imported labels that are taken; empty: none."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.campaign.run.name


def process_shard(shard: str, settings: ShardSettings, on_event: OnEvent = ignore) -> Marker:
    """Process one shard of the run's plan; the one function that any engine calls.

    What is done already is not done again: with a marker under the present settings nothing happens, and of an older
    marker the stages that depend on nothing that has changed are kept. Any number of workers may do the same shard
    at once or be killed at any moment: parts are named by their content and the first marker counts.

    Returns:
        The marker, written or found.

    Raises:
        UserError: The set-up is at fault (models, access), so that no other shard would fare better.
        VouchError: The workspace failed, or every image of the shard failed for an unforeseen reason.
    """
    campaign = settings.campaign
    workspace = open_store(campaign.workspace)
    pipeline = load_pipeline(campaign, settings.imported)
    stages = pipeline.stages(settings.policy)
    fingerprint = stages_fingerprint(stages)
    marker = read_marker(workspace, settings.run, shard, fingerprint)
    if marker is not None:
        on_event(progress_of(marker.counts))
        return marker
    older = best_marker(workspace, settings.run, shard, stages)
    if older is not None and set(KEPT_STAGES) <= set(reusable_stages(older, stages)):
        marker = reroute_shard(workspace, settings.run, older, settings.policy)
        on_event(progress_of(marker.counts))
        return marker
    report = _Reporter(on_event)
    try:
        markers = markers_of(workspace, settings.run, shard)
        earlier = Earlier() if older is None else read_earlier(workspace, older, stages)
        earlier = with_found(workspace, earlier, markers, pipeline)
        tables = _tables(shard, settings, workspace, pipeline, earlier, report)
        counts = count(tables)
        _raise_if_all_failed(shard, counts)
        parts = {stage: write_part(workspace, settings.run, shard, stage, tables[stage]) for stage in STAGES}
        found = {
            name.removeprefix(FOUND_OF): write_found(workspace, settings.run, shard, table)
            for name, table in tables.items()
            if name.startswith(FOUND_OF)
        }
    except BaseException:
        report.take_back()
        raise
    marker = Marker(
        shard=shard, fingerprint=fingerprint, stages=stages, parts=parts, counts=counts, found=found,
        masks=pipeline.masks_key, numbers=write_numbers(workspace, settings.run, shard, tables),
    )  # fmt: skip
    return write_marker(workspace, settings.run, marker)


def _tables(
    shard: str, settings: ShardSettings, workspace: Store, pipeline: Pipeline, earlier: Earlier, report: "_Reporter"
) -> dict[str, pa.Table]:
    campaign, run = settings.campaign, settings.run
    source = open_source(campaign.source, campaign.workspace)
    refs = read_plan(workspace, run, shard)
    class_names = [entry.key for entry in campaign.classes]
    alike = Alike(workspace, run, read_alike(workspace, run, shard), pipeline, settings.policy)
    threads = None if campaign.run.fetch_threads == "auto" else campaign.run.fetch_threads
    acquired = acquire(refs, source, campaign.source, threads, campaign.run.decode_memory_mb)
    given = None
    if settings.imported:
        given = read_given(workspace, run, settings.imported, [ref.key for ref in refs], class_names)
    images = _Images(acquired, earlier, alike, given)
    tables_of_batches = []
    covered = coverage_of_run(workspace, settings.policy)
    for tables in process_batches(_batches(images, pipeline), pipeline, settings.policy, class_names, covered):
        tables_of_batches.append(tables)
        report(progress_of(count(tables)))
    looked_at = join_tables(tables_of_batches)
    tables = with_copies(looked_at, images.copies, refs)
    _report_known(looked_at, tables, images.known, report)
    _raise_if_source_left(shard, count(tables), source)
    return tables


class _Images:
    """Hands out what is to be worked through: images with the rows that they keep, each content once."""

    def __init__(
        self, images: Iterator[Acquired], earlier: Earlier, alike: Alike, given: Mapping[str, Given] | None
    ) -> None:
        """Take what is to be labelled, what is known of it, and key -> imported labels, None where none count."""
        self._images, self._earlier, self._alike, self._given = images, earlier, alike, given
        self._first: dict[str, str] = {}
        self.copies: list[Copy] = []
        self.known = 0
        """Images whose content was labelled before, in other shards."""

    def __iter__(self) -> Iterator[Work]:
        for item in self._images:
            if item.image is None:
                yield Work(item.ref, None, item.failed)
                continue
            key, sha256 = item.ref.key, item.image.sha256
            if self._given is None:  # else equal images may have other labels
                original = self._first.setdefault(sha256, key)
                if original != key:
                    self.copies.append(Copy(item.ref, sha256, original))
                    continue
            work = Work(item.ref, item.image, kept=self._earlier.kept(key, sha256))
            work.found = self._earlier.found_of(key, sha256)
            work.masked = self._earlier.masked_of(key, sha256)
            work.given = None if self._given is None else self._given.get(key)
            if not work.kept and self._given is None:
                self.known += self._alike.take_over(work, sha256)
            yield work


def _report_known(looked_at: dict[str, pa.Table], tables: dict[str, pa.Table], known: int, report: "_Reporter") -> None:
    """Report the copies, and how many images no model had to look at."""
    before, after = count(looked_at), count(tables)
    copies = after.done - before.done
    report(
        Progress(
            copies,
            after.failed - before.failed,
            after.accepted - before.accepted,
            after.review - before.review,
            known + copies,
        )
    )


def _batches(images: Iterable[Work], pipeline: Pipeline) -> Iterator[Sequence[Work]]:
    """Gather images into batches: enough for full batches of the models, small enough for memory."""
    works: list[Work] = []
    held = 0
    full = BATCH_IMAGES if pipeline.stages_on is None else BATCH_IMAGES_ON_GPU
    most = full if pipeline.stages_on is None else min(FIRST_IMAGES_ON_GPU, full)
    for work in images:
        works.append(work)
        held += work.image.pixels.nbytes if work.image else 0
        if len(works) >= most or held >= BATCH_BYTES:
            yield works
            works, held, most = [], 0, min(2 * most, full)
    if works:
        yield works


def _raise_if_source_left(shard: str, counts: ShardCounts, source: Store) -> None:
    """Images that are all gone, or gone from a source that is empty by now, have not been deleted one by one.

    A mount that is dropped leaves an empty folder. The shard is not marked then; if the images are gone for good, the
    next listing lacks them, and nobody asks for them again.
    """
    deleted = counts.reasons.get(f"fetch: {DELETED}", 0)
    all_of_many = deleted == counts.images >= FEW_IMAGES
    if deleted and (all_of_many or next(iter(source.list()), None) is None):
        raise VouchError(
            f"{deleted:,} of {counts.images:,} images of shard {shard} are gone from {source.uri} since it was listed: "
            "see that it is there (a mount, a bucket) and whole, and run again"
        )


def _raise_if_all_failed(shard: str, counts: ShardCounts) -> None:
    """A shard of which nothing but unforeseen errors and denied access came has met a fault of its surroundings."""
    if (
        counts.done
        or not counts.reasons
        or not all(": unforeseen" in reason or reason == _DENIED for reason in counts.reasons)
    ):
        return
    reason = next(iter(counts.reasons))
    # One image that a model cannot take, that is denied or for which memory never suffices must not keep its small
    # shard from ever being done; a store comes back.
    if counts.images >= FEW_IMAGES or (reason.startswith("fetch: unforeseen") and NO_MEMORY not in reason):
        raise VouchError(
            f"not one of {plural(counts.images, 'image')} of shard {shard} was labelled, for {reason}; see the log"
        )


class _Reporter:
    """Passes events on, and can take it back when a shard has to be tried again."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._reported: list[Progress] = []

    def __call__(self, event: Progress) -> None:
        self._reported.append(event)
        self._on_event(event)

    def take_back(self) -> None:
        for event in self._reported:
            self._on_event(event.taken_back())
