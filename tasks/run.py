"""Runs a campaign step by step, for whatever orchestrates it."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import ceil
from typing import Final, Self

from vouch_labels.schemas.campaign import Campaign, merged_names, shown_names, unknown_classes
from vouch_labels.schemas.errors import WorkspaceBusyError
from vouch_labels.schemas.records import Current, ExportOutcome, Generation, RunSummary, ShardRef, Step
from vouch_labels.tasks.certify.active import choose_policy, guarantee_of
from vouch_labels.tasks.cluster import Cluster
from vouch_labels.tasks.export.export import check_export_name, export_run
from vouch_labels.tasks.imported import imported_of
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.totals import add_up, by_shown_name, failed_images, first_failed
from vouch_labels.tasks.models.registry import check_models_there
from vouch_labels.tasks.nodes import Start, gpus_of_worker, size_of_worker
from vouch_labels.tasks.plan.ledger import Due, Ledger
from vouch_labels.tasks.plan.plan import (
    count_unplanned,
    first_listed,
    is_planned,
    list_source,
    plan_listed,
    refuse_empty,
    take_listing,
)
from vouch_labels.tasks.plan.same_campaign import (
    check_classes,
    check_same_campaign,
    check_source,
    labelled_source,
    write_source,
)
from vouch_labels.tasks.policy import accepts, basis, check_fits
from vouch_labels.tasks.reviews.class_changes import added_classes, answers_without_label, carry_answers, check_names
from vouch_labels.tasks.reviews.note_moves import note_moves
from vouch_labels.tasks.shard.events import Event, Listing, Loading, OnEvent, Planned, Progress, ignore
from vouch_labels.tasks.shard.files import read_current, shards_done, write_current
from vouch_labels.tasks.shard.pipeline import load_pipeline, recipe_of, rerouted, stages_fingerprint
from vouch_labels.tasks.shard.shard import ShardSettings
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import (
    check_format,
    check_readable,
    check_writable,
    open_store,
    open_workspace,
    write_format,
)
from vouch_labels.tasks.store.source import open_source

START: Final = "start"
"""Part of a run's time that is no other: programs and Prefect start, checks, planning, sums."""
LISTING: Final = "listing"
LOADING: Final = "loading models"
LABELLING: Final = "labelling"
EXPORT: Final = "export"


@dataclass(frozen=True)
class RunOptions:
    """What is asked of one run, beside its campaign."""

    retry_failed: bool = False
    """Try images that failed at any step once more; those that could not be fetched are tried again by every run."""
    export: bool = True
    """Write the data set at the end."""
    accept_changes: bool = False
    """Go on although another source or other classes take the place of what the run labelled, or most images are gone.
    """
    limit: int | None = None
    """Label so many images alone, the first by key; None: all."""
    started: float | None = None
    """When the user began to wait, on the clock of time.monotonic; None: with the run."""


class CampaignRun:
    """Holds what the steps of one run share: the stores, the lock, the ledger, the settings.

    Use it in a with block and call `plan`, then `process_shard` for every shard of `pending`, then `export` and
    `summary`. Entering raises UserError when the source, the workspace, the models or the policy cannot be used.
    """

    def __init__(self, campaign: Campaign, on_event: OnEvent = ignore, options: RunOptions | None = None) -> None:
        """Prepare; nothing is touched before the block is entered."""
        self.campaign = campaign
        self.options = options or RunOptions()
        self._tell = on_event
        self._name = campaign.run.name
        self._exit = ExitStack()
        self._generation: Generation | None = None
        self._moved = self._known = self._new_images = 0
        self._skipped = Counter[str]()
        self._started = time.monotonic() if self.options.started is None else self.options.started
        self._parts: dict[str, float] = {}
        self._carried: dict[str, int] | None = None
        self.cluster: Cluster | None = None
        """With runner ray, once the block is entered and unless it is idle: the workers that process the shards."""
        self.due = 0
        """How many shards `pending` yields."""
        self.idle = False
        """Once the block is entered: whether every image is labelled, so that `finish` does the rest."""

    def __enter__(self) -> Self:
        """Check everything that a user can get wrong, cheapest first, take the lock and list the source.

        The models are loaded last, and only where an image waits for them (`idle`) or nothing else tells whether one
        does. Nothing of an earlier run is overwritten.
        """
        campaign = self.campaign
        check_models_there(campaign.models)
        self._source = open_source(campaign.source, campaign.workspace)
        self._workspace = open_store(campaign.workspace)
        self._labelled = labelled_source(campaign.source, self._source)
        check_readable(self._source)
        has_format = check_format(self._workspace)
        check_writable(self._workspace)
        check_export_name(campaign, self._workspace)
        self._check_classes()
        if not has_format:
            write_format(self._workspace)
        with ExitStack() as stack:
            self._lock = stack.enter_context(WorkspaceLock(self._workspace, self._name))
            self._ledger = stack.enter_context(Ledger.load(self._workspace, self._name))
            self._chosen = choose_policy(campaign, self._workspace)
            policy = self._chosen.policy
            before = read_current(self._workspace, self._name)
            with self.timed(LISTING):
                self._list()
            imported = imported_of(self._workspace, self._name)
            self.settings = ShardSettings(campaign, policy, imported.table if imported else "")
            recipes = self._recipes()
            recipe = recipes[0]
            known = before is not None and before.recipe in recipes and before.recipe != ""
            stages, inputs = {}, {}
            if before and known:
                stages, inputs, recipe = rerouted(before.stages, policy), before.inputs, before.recipe
            self.idle = known and not self._has_work(stages)
            if not self.idle:
                self.on_event(Loading("models"))
                with self.timed(LOADING):
                    if campaign.run.runner == "ray":
                        self.cluster = stack.enter_context(self._cluster())
                        stages, inputs, recipe = self.cluster.describe()
                    else:
                        pipeline = load_pipeline(campaign, self.settings.imported)
                        stages, inputs = pipeline.stages(policy), pipeline.inputs
                self.idle = not known and not self._has_work(stages)
                if self.cluster is not None and not self.idle:
                    new = count_unplanned(self._ledger) / campaign.run.shard_size
                    self.cluster.prepare(ceil(new) + self._settle_due(stages_fingerprint(stages)).shards)
            check_fits(policy, inputs)
            self._current = Current(
                fingerprint=stages_fingerprint(stages),
                policy=policy.version,
                classes=tuple(entry.key for entry in campaign.classes),
                names=shown_names(campaign.classes),
                merged=merged_names(campaign.classes),
                inputs=inputs,
                added=added_classes(campaign.classes, before),
                recipe=recipe,
                stages=stages,
            )
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        self._exit.close()

    def on_event(self, event: Event) -> None:
        """Pass an event on; what processes the shards of this run tells it here how it goes on."""
        if isinstance(event, Progress):
            self._known += event.known
        self._tell(event)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time of a block as this part of the run's."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._parts[part] = self._parts.get(part, 0.0) + time.monotonic() - started

    def _check_classes(self) -> None:
        before = read_current(self._workspace, self._name)
        check_names(self.campaign.classes, before)
        if before is not None and not self.options.accept_changes:
            check_classes(self._workspace, self._name, before.classes, self.campaign.classes)

    def _list(self) -> None:
        """List the source, and make sure that it is the one that was labelled, and whole."""
        source, limit = self.campaign.source, self.options.limit
        images = list_source(source, self._source, workspace=self.campaign.workspace, skipped=self._skipped)
        if limit is not None and source.manifest is None:
            images = islice(images, limit)  # stores list in the order of keys
        if not take_listing(images, self._ledger, lambda keys: self.on_event(Listing(keys)), limit):
            refuse_empty(self._ledger, skipped=self._skipped)
        if not self.options.accept_changes:
            in_part = limit is not None
            check_source(self._workspace, self._name, self._ledger, self._labelled, in_part=in_part)

    def _recipes(self) -> list[str]:
        """What keys may be made of, see `recipe_of`; the precision of a cluster's GPUs is known by a worker alone."""
        run, models = self.campaign.run, self.campaign.models
        recipe = partial(recipe_of, self.campaign, imported=self.settings.imported)
        if run.runner == "local":
            return [recipe()]
        if gpus_of_worker(self.campaign) == 0:
            return [recipe("cpu", "fp32" if models.precision == "auto" else models.precision)]
        asked = ("bf16", "fp32") if models.precision == "auto" else (models.precision,)
        return [recipe("cuda", precision) for precision in asked]

    def _cluster(self) -> Cluster:
        size, first = size_of_worker(self.campaign), first_listed(self._ledger)
        sees_it = first and self._source.stat(first) is not None
        start = Start(self.settings, "cuda" if size.gpus else "cpu", self._lock.token, first if sees_it else "")
        return Cluster(start, size, self.on_event)

    def _has_work(self, stages: dict[str, str]) -> bool:
        """Whether something is to be planned, or a shard to be processed, under these keys."""
        fingerprint = stages_fingerprint(stages)
        failed = self._failed(fingerprint)
        return not is_planned(self._ledger, failed) or self._settle_due(fingerprint).shards > 0

    def _failed(self, fingerprint: str) -> list[str]:
        """Keys of the images to plan again."""
        step: Step | None = None if self.options.retry_failed else "fetch"
        return [one.key for one in failed_images(self._workspace, self._name, self._ledger, fingerprint, step=step)]

    def plan(self) -> Generation | None:
        """Plan what is new or changed in the source; None when nothing is.

        Images that could not be fetched are planned again, for the store may have come back; where asked for, those too
        that failed at any other step.

        Raises:
            WorkspaceBusyError: Another run has planned in the meantime.
        """
        place = self._ledger.next_place()
        self._generation = plan_listed(
            self._workspace,
            self._name,
            self._ledger,
            self.campaign.run.shard_size,
            self._failed(self._current.fingerprint),
            in_part=self.options.limit is not None,
        )
        self._new_images = self._ledger.images_from(place)
        write_source(self._workspace, self._name, self._labelled)
        self._current = self._current.model_copy(update={"skipped": dict(self._skipped.most_common())})
        write_current(self._workspace, self._name, self._current)
        return self._generation

    def pending(self) -> Iterator[ShardRef]:
        """Give the shards that are not done under the present settings, in plan order, a page of them in memory.

        With a limit only those that hold some of the images asked for; what was planned together before is done whole.
        """
        due = self._settle_due(self._current.fingerprint)
        self.due = due.shards
        self.on_event(Planned(due.done + due.images, due.done, due.shards))
        return self._ledger.due()

    def _settle_due(self, fingerprint: str) -> Due:
        finished = shards_done(self._workspace, self._name, fingerprint)
        return self._ledger.settle_due(finished, self.options.limit)

    def check_lock(self) -> None:
        """Make sure that no other process has taken this run over, while this one slept or was cut off, say.

        Raises:
            WorkspaceBusyError: One has; it does the rest.
        """
        if self._lock.lost:
            raise WorkspaceBusyError(f"run {self._name!r} was taken over by another process, which does the rest")

    def note_moves(self, worked: "Processed") -> None:
        """Let reviews follow the images that have moved; needs every shard to be done, or it is left to a later run.

        Raises:
            StoreError: The workspace cannot be read or written.
        """
        if not worked.errors and self.options.limit is None:
            self._moved = note_moves(self._workspace, self._name, self._ledger, self._current.fingerprint)

    def export(self) -> ExportOutcome:
        """Write the data set of all that is done.

        Raises:
            UserError: The images cannot be linked.
            StoreError: The workspace cannot be written.
        """
        with self.timed(EXPORT):
            self._carry_answers()
            guarantee = guarantee_of(self.campaign, self._workspace, self._current.policy)
            return export_run(self.campaign, self._ledger, self._current, guarantee, self.on_event)

    def finish(self) -> RunSummary:
        """Do all that is left to do where no shard is due (`idle`); no model is needed.

        Raises:
            UserError: As `export`.
            StoreError: As `export`.
        """
        self.plan()
        self.pending()
        worked = Processed()
        self.note_moves(worked)
        return self.summary(worked, self.export() if self.options.export else None)

    def _carry_answers(self) -> None:
        if self._carried is None:
            self._carried = carry_answers(self._workspace, self._name, self._ledger, self._current)

    def timed_again(self, summary: RunSummary) -> RunSummary:
        """A summary of this run with the time that has passed until now."""
        parts = self._seconds(summary.seconds_of.get(LABELLING, 0.0))
        return summary.model_copy(update={"seconds": round(sum(parts.values()), 3), "seconds_of": parts})

    def _seconds(self, labelling: float) -> dict[str, float]:
        """The time of the run so far, in parts that add up to all of it."""
        whole = time.monotonic() - self._started
        parts = {**self._parts, LABELLING: labelling}
        order = (LISTING, LOADING, LABELLING, EXPORT)
        known = {name: round(parts[name], 3) for name in order if name in parts}
        return {START: round(max(0.0, whole - sum(known.values())), 3), **known}

    def summary(self, worked: "Processed", exported: ExportOutcome | None) -> RunSummary:
        """Add up the run: the shards that it processed, its data set if one was written, and its wall-clock time."""
        self._carry_answers()
        parts = self._seconds(worked.seconds)
        where = (self._workspace, self._name, self._ledger, self._current.fingerprint)
        totals = add_up(*where, keep=True)
        failed = first_failed(*where) if totals.failed else []
        policy, generation = self.settings.policy, self._generation
        return RunSummary(
            run=self._name,
            workspace=self._workspace.uri,
            **totals.figures(),
            new_images=self._new_images,
            removed_images=generation.removed if generation else 0,
            known_images=self._known,
            moved_images=self._moved,
            limit=self.options.limit,
            shards_processed=worked.shards,
            workers=self.cluster.most if self.cluster else 0,
            workers_lost=self.cluster.lost if self.cluster else [],
            workers_retired=self.cluster.retired if self.cluster else [],
            classes=by_shown_name(totals.classes, self._current),
            failed_images=failed,
            skipped=dict((totals.skipped + Counter(self._current.skipped)).most_common()),
            policy=policy.version,
            policy_basis=basis(policy),
            policy_expired=self._chosen.expired,
            accepts=accepts(policy),
            answers_carried=self._carried or {},
            answers_without_label=answers_without_label(self._workspace, self._name, self._ledger, self._current),
            shard_errors=worked.errors,
            seconds=round(sum(parts.values()), 3),
            seconds_of=parts,
            images_per_second=round(worked.images / worked.seconds, 3) if worked.seconds else 0.0,
            export=exported,
            bundled=self.campaign.models.bundled,
            unknown_classes=unknown_classes(self.campaign),
        )


@dataclass
class Processed:
    """What became of the shards of this run."""

    shards: int = 0
    images: int = 0
    seconds: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    """Shard id -> why it could not be finished."""

    def note(self, shard: str, images: int, error: str) -> None:
        """Count a shard; an error says why it could not be finished."""
        if error:
            self.errors[shard] = error
            return
        self.shards += 1
        self.images += images


def export_campaign(campaign: Campaign, on_event: OnEvent = ignore) -> ExportOutcome:
    """Export what the last run of a campaign left, without labelling anything.

    Raises:
        UserError: The campaign has not been run yet, or the labels or the data set are another campaign's.
        StoreError: The workspace cannot be read or written.
    """
    workspace = open_workspace(campaign.workspace)
    current = current_of(workspace, campaign.run.name)
    with Ledger.load(workspace, campaign.run.name) as ledger:
        check_same_campaign(workspace, campaign, current.classes, ledger)
        return export_run(campaign, ledger, current, guarantee_of(campaign, workspace, current.policy), on_event)
