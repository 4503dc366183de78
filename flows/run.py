"""The main flow: plan what is new, process the shards, export the data set; and how Prefect tasks are made.

Names, retries and timeouts of tasks are decided here, in one place.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, flow
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from vouch_labels.flows.artifacts import publish
from vouch_labels.flows.prefect_server import Outcome, prefect_server
from vouch_labels.schemas.campaign import RunConfig
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import ExportOutcome, Generation, Marker, RunSummary
from vouch_labels.tasks.cluster import TOO_LONG
from vouch_labels.tasks.run import CampaignRun, Processed, RunOptions
from vouch_labels.tasks.shard.events import OnEvent, ignore
from vouch_labels.tasks.shard.shard import ShardSettings, process_shard

FAILURES_IN_A_ROW = 3
"""Shards failing one after the other, each after its retries, that end a run."""

LOG_EVERY_S = 60.0
"""Seconds between two lines about a cluster in Prefect's log."""

# What listens belongs to this process alone: it is no parameter, for Prefect would store and send those.
_listener: ContextVar[OnEvent] = ContextVar("listener", default=ignore)
_opened: ContextVar[CampaignRun | None] = ContextVar("opened", default=None)
_outcome: ContextVar[Outcome[RunSummary] | None] = ContextVar("outcome", default=None)

P = ParamSpec("P")
R = TypeVar("R")


def run_campaign(
    campaign: Path, *, on_event: OnEvent = ignore, options: RunOptions | None = None, opened: CampaignRun | None = None
) -> RunSummary:
    """Run a campaign file as a flow in this process, see `vouch_run`; `on_event` is told how it goes on.

    `opened` is a run of that file whose block the caller has entered, so that a mistake showed before Prefect was
    imported; it brings its own listener and options. Without it, the run is opened here, before Prefect's server
    starts.

    Where every image is labelled already, Prefect's server is not started, and sees no flow run.

    A Prefect server that goes away in mid-run takes nothing from it: a warning says that Prefect did not hear of it.

    Raises:
        UserError: The campaign, the source, the workspace or the models cannot be used, or no Prefect server answers.
        VouchError: The storage failed, or Prefect's server before anything was started.
    """
    if opened is None:
        with CampaignRun(load_campaign(campaign), on_event, options) as run:
            return run_campaign(campaign, opened=run)
    if opened.idle:
        return opened.finish()
    outcome = Outcome[RunSummary]()
    tokens = _opened.set(opened), _outcome.set(outcome)
    try:
        with prefect_server():
            summary = outcome.of(lambda: vouch_run(str(campaign)))
    finally:
        _opened.reset(tokens[0])
        _outcome.reset(tokens[1])
    # Prefect has taken its time at the end as well.
    return opened.timed_again(summary)


@flow(name="vouch-run", persist_result=False)
def vouch_run(
    campaign: str,
    retry_failed: bool = False,
    export: bool = True,
    accept_changes: bool = False,
    limit: int | None = None,
) -> dict[str, Any]:
    """Label what is new in the source of a campaign and export the data set.

    Args:
        campaign: Path of the campaign file on the machine that runs the flow.
        retry_failed: Try images that failed in an earlier run once more.
        export: Write the data set at the end.
        accept_changes: Go on although another source or other classes take the place of those that were labelled, or
            most images have vanished.
        limit: Label so many images alone, the first by key; None: all.

    Returns:
        The RunSummary as JSON values.
    """
    with _outcome.get() or Outcome[RunSummary]() as outcome:
        opened = _opened.get()
        if opened is not None:
            summary = _run(opened)
        else:
            options = RunOptions(retry_failed=retry_failed, export=export, accept_changes=accept_changes, limit=limit)
            with CampaignRun(load_campaign(Path(campaign)), _listener.get(), options) as run:
                summary = _run(run)
        outcome.result = summary
    publish("vouch-run", f"run {summary.run} in figures", f"Run {summary.run}", summary.blocks())
    return summary.model_dump(mode="json")


def _run(run: CampaignRun) -> RunSummary:
    token = _listener.set(run.on_event)
    try:
        plan_shards(run)
        processed = run_on_cluster(run) if run.cluster is not None else _process_shards(run)
        run.note_moves(processed)
        exported = export_labels(run) if run.options.export else None
    finally:
        _listener.reset(token)
    return run.summary(processed, exported)


def vouch_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Vouch task.

    Nothing is cached by Prefect, since the workspace's own markers say what is done, and parameters are neither
    stored nor sent; retries are set per run by `with_retries`. It has no tags: each tag makes a task ask the server
    for a slot, so that a run could not go on without it.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(function, name=name, persist_result=False, cache_policy=NO_CACHE)

    return decorate


@vouch_task("plan")
def plan_shards(run: CampaignRun) -> Generation | None:
    """Plan what is new or changed."""
    return run.plan()


@vouch_task("shard")
def run_shard(shard: str, settings: ShardSettings) -> Marker:
    """Process one shard."""
    return process_shard(shard, settings, _listener.get())


@vouch_task("workers")
def run_on_cluster(run: CampaignRun) -> Processed:
    """Have the workers of a cluster process all shards; one task, since a task a shard costs more than the hand-over.

    What is tried again, and where, is decided by the cluster's driver, as `tasks.cluster` says.
    """
    assert run.cluster is not None
    processed, started = Processed(), time.monotonic()
    said, log = started, get_run_logger()
    for attempt in run.cluster.work(run.pending(), run.due, run.check_lock):
        processed.note(*attempt)
        if time.monotonic() - said > LOG_EVERY_S:
            said = time.monotonic()
            log.info("%d of %d shards, %d images; %s", processed.shards, run.due, processed.images, run.cluster.words())
    processed.seconds = time.monotonic() - started
    return processed


@vouch_task("export")
def export_labels(run: CampaignRun) -> ExportOutcome:
    """Write the data set."""
    return run.export()


def _process_shards(run: CampaignRun) -> Processed:
    """Process what is due, one shard after the other, since the models fill the machine already.

    A shard that fails after all its retries is noted and does not keep the others from being done; after several in a
    row the fault is not the shards' (a full disk, a dead GPU) and the rest is left for the next run.
    """
    processed = Processed()
    started = time.monotonic()
    in_a_row = 0
    for shard in run.pending():
        run.check_lock()
        attempt = with_retries(run_shard, run.campaign.run, f"shard-{shard.id}")
        result = attempt(shard.id, run.settings, return_state=True).result(raise_on_failure=False)
        if isinstance(result, UserError):
            raise result
        if isinstance(result, Marker):
            processed.note(shard.id, result.counts.images, "")
            in_a_row = 0
            continue
        processed.note(shard.id, 0, _message(result))
        in_a_row += 1
        if in_a_row == FAILURES_IN_A_ROW:
            break
    processed.seconds = time.monotonic() - started
    return processed


def _message(error: object) -> str:
    if isinstance(error, TimeoutError):
        return TOO_LONG
    return " ".join(str(error).split()) or type(error).__name__


def with_retries(work: Task[P, R], config: RunConfig, run_name: str) -> Task[P, R]:
    """Set how often and how long a task is tried: delays double from config.retry_delay_s.

    A UserError is not tried again, since only the user can fix it.
    """
    return work.with_options(
        task_run_name=run_name,
        retries=config.retries,
        retry_delay_seconds=exponential_backoff(config.retry_delay_s) if config.retry_delay_s else 0,
        retry_condition_fn=_may_pass,
        timeout_seconds=config.shard_timeout_s,
    )


def _may_pass(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return not isinstance(error, UserError)
