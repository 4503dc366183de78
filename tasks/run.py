"""Runs a campaign step by step, for whatever orchestrates it."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from vouch_labels.schemas.campaign import Campaign, merged_names, shown_names
from vouch_labels.schemas.errors import WorkspaceBusyError
from vouch_labels.schemas.records import Current, ExportOutcome, Generation, RunSummary, ShardRef, Step
from vouch_labels.tasks.certify.active import choose_policy
from vouch_labels.tasks.export.export import check_export_name, export_run
from vouch_labels.tasks.labels.totals import add_up, by_shown_name, failed_images
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import list_source, plan
from vouch_labels.tasks.policy import accepts, basis, check_fits
from vouch_labels.tasks.reviews.class_changes import added_classes, answers_without_label, carry_answers, check_names
from vouch_labels.tasks.shard.events import Listing, Loading, OnEvent, Planned, ignore
from vouch_labels.tasks.shard.files import read_current, shards_done, write_current
from vouch_labels.tasks.shard.pipeline import load_pipeline, stages_fingerprint
from vouch_labels.tasks.shard.shard import ShardSettings
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import check_format, check_readable, check_writable, open_store, write_format


class CampaignRun:
    """Holds what the steps of one run share: the stores, the lock, the ledger, the settings.

    Use it in a with block and call `plan`, then `process_shard` for every shard of `pending`, then `export` and
    `summary`. Entering raises UserError when the source, the workspace, the models or the policy cannot be used.
    """

    def __init__(self, campaign: Campaign, on_event: OnEvent = ignore) -> None:
        """Prepare; nothing is touched before the block is entered."""
        self.campaign = campaign
        self._on_event = on_event
        self._name = campaign.run.name
        self._exit = ExitStack()
        self._generation: Generation | None = None
        self._carried: dict[str, int] | None = None

    def __enter__(self) -> Self:
        """Check everything that a user can get wrong, cheapest first, and take the lock."""
        campaign = self.campaign
        self._source, self._workspace = open_store(campaign.source), open_store(campaign.workspace)
        check_readable(self._source)
        has_format = check_format(self._workspace)
        check_writable(self._workspace)
        if not has_format:
            write_format(self._workspace)
        check_export_name(campaign, self._workspace)
        with ExitStack() as stack:
            self._lock = stack.enter_context(WorkspaceLock(self._workspace, self._name))
            self._ledger = stack.enter_context(Ledger.load(self._workspace, self._name))
            self._chosen = choose_policy(campaign, self._workspace)
            policy = self._chosen.policy
            before = read_current(self._workspace, self._name)
            check_names(campaign.classes, before)
            self._on_event(Loading("models"))
            pipeline = load_pipeline(campaign)
            check_fits(policy, pipeline.inputs)
            self._current = Current(
                fingerprint=stages_fingerprint(pipeline.stages(policy)),
                policy=policy.version,
                classes=tuple(entry.key for entry in campaign.classes),
                names=shown_names(campaign.classes),
                merged=merged_names(campaign.classes),
                inputs=pipeline.inputs,
                added=added_classes(campaign.classes, before),
            )
            self.settings = ShardSettings(campaign, policy)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._exit.close()

    def plan(self, *, retry_failed: bool = False) -> Generation | None:
        """Plan what is new or changed in the source; None when nothing is.

        Images that could not be fetched are planned again by every run, for the store may have come back; with
        `retry_failed` those too that failed at any other step.

        Raises:
            UserError: The source is empty or cannot be listed.
        """
        step: Step | None = None if retry_failed else "fetch"
        failed = failed_images(self._workspace, self._name, self._ledger, self._current.fingerprint, step=step)
        retry = [image.key for image in failed]
        self._generation = plan(
            list_source(self.campaign.source, self._source, workspace=self.campaign.workspace),
            self._workspace,
            self._name,
            self._ledger,
            self.campaign.run.shard_size,
            retry,
            progress=lambda keys: self._on_event(Listing(keys)),
        )
        write_current(self._workspace, self._name, self._current)
        return self._generation

    def pending(self) -> list[ShardRef]:
        """List the shards that are not done under the present settings, in plan order."""
        finished = shards_done(self._workspace, self._name, self._current.fingerprint)
        shards = self._ledger.shards()
        due = [shard for shard in shards if shard.id not in finished]
        waiting = 0 if len(due) == len(shards) else sum(len(self._ledger.keys_of(shard.id)) for shard in due)
        done = self._ledger.count() - waiting if waiting else 0
        self._on_event(Planned(done + sum(shard.count for shard in due), done, len(due)))
        return due

    def check_lock(self) -> None:
        """Make sure that no other process has taken this run over, while this one slept or was cut off, say.

        Raises:
            WorkspaceBusyError: One has; it does the rest.
        """
        if self._lock.lost:
            raise WorkspaceBusyError(f"run {self._name!r} was taken over by another process, which does the rest")

    def export(self) -> ExportOutcome:
        """Write the data set of all that is done.

        Raises:
            UserError: The images cannot be linked.
            StoreError: The workspace cannot be written.
        """
        self._carry_answers()
        return export_run(self.campaign, self._ledger, self._current, self._on_event)

    def _carry_answers(self) -> None:
        if self._carried is None:
            self._carried = carry_answers(self._workspace, self._name, self._ledger, self._current)

    def summary(self, worked: "Processed", exported: ExportOutcome | None, seconds: float) -> RunSummary:
        """Add up the run: the shards that it processed, its data set if one was written, and its wall-clock time."""
        self._carry_answers()
        totals = add_up(self._workspace, self._name, self._ledger, self._current.fingerprint)
        policy, generation = self.settings.policy, self._generation
        return RunSummary(
            run=self._name,
            workspace=self._workspace.uri,
            images=totals.images,
            done=totals.done,
            failed=totals.failed,
            pending=totals.pending,
            new_images=sum(shard.count for shard in generation.shards) if generation else 0,
            removed_images=generation.removed if generation else 0,
            shards=totals.shards,
            shards_processed=worked.shards,
            labels=totals.labels,
            accepted=totals.accepted,
            review=totals.review,
            classes=by_shown_name(totals.classes, self._current),
            reasons=dict(totals.reasons.most_common()),
            policy=policy.version,
            policy_basis=basis(policy),
            policy_expired=self._chosen.expired,
            accepts=accepts(policy),
            answers_carried=self._carried or {},
            answers_without_label=answers_without_label(self._workspace, self._name, self._ledger, self._current),
            shard_errors=worked.errors,
            seconds=round(seconds, 3),
            images_per_second=round(worked.images / worked.seconds, 3) if worked.seconds else 0.0,
            export=exported,
            bundled=self.campaign.models.bundled,
        )


@dataclass
class Processed:
    """What became of the shards of this run."""

    shards: int = 0
    images: int = 0
    seconds: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    """Shard id -> why it could not be finished."""
