"""Says how far a campaign is, from its workspace alone: no model is loaded, no source listed."""

import time

from pydantic import ValidationError

from schemas.campaign import Campaign
from schemas.errors import ObjectMissingError
from schemas.records import ClassCounts, Current, ExportStatus, RunStatus
from tasks.collect.totals import Totals, add_up
from tasks.contract.next_step import next_step
from tasks.contract.standing import read_standing
from tasks.export.records import ExportSummary
from tasks.plan.ledger import Ledger
from tasks.shard.markers import read_current
from tasks.store.lock import LockRecord
from tasks.store.open import open_store
from tasks.store.process import ProcessId, is_alive
from tasks.store.store import Store

SILENT_S = 120.0
"""A holder on another machine that has not renewed its lock for so many seconds is taken for dead."""


def read_status(campaign: Campaign) -> RunStatus:
    """Add up what stands in the workspace.

    Raises:
        StoreAccessError: The workspace cannot be reached.
        StoreError: A marker, a table, a review plan, a file of verdicts or the record of a policy is damaged.
    """
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current = read_current(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        totals = _totals(workspace, run, ledger, current)
    standing = read_standing(campaign, workspace, current)
    names = current.classes if current is not None else tuple(entry.name for entry in campaign.classes)
    running = _holder(workspace, run)
    return RunStatus(
        run=run,
        workspace=workspace.uri,
        running=running,
        images=totals.images,
        done=totals.done,
        failed=totals.failed,
        pending=totals.pending,
        shards=totals.shards,
        shards_done=totals.shards_done,
        labels=totals.labels,
        accepted=totals.accepted,
        review=totals.review,
        classes={name: totals.classes.get(name, ClassCounts()) for name in names},
        reasons=dict(totals.reasons.most_common()),
        policy=current.policy if current is not None else None,
        in_force=standing.policy,
        reviews=standing.reviews,
        export=_export(workspace, campaign.export.name),
        next=next_step(campaign, standing, totals, current, running=running is not None),
    )


def _totals(workspace: Store, run: str, ledger: Ledger, current: Current | None) -> Totals:
    if current is None:
        # Planned at most: a plan is written before its settings.
        return Totals(images=ledger.count(), shards=len(ledger.shards()))
    return add_up(workspace, run, ledger, current.fingerprint)


def _holder(workspace: Store, run: str) -> str | None:
    try:
        record = LockRecord.model_validate_json(workspace.get(f"runs/{run}/lock.json").data)
    except (ObjectMissingError, ValidationError):
        return None
    alive = is_alive(ProcessId(record.place, record.pid, record.started))
    if alive is None:
        alive = time.time() - record.heartbeat < SILENT_S
    return f"process {record.pid} on {record.host}" if alive else None


def _export(workspace: Store, name: str) -> ExportStatus | None:
    try:
        summary = ExportSummary.model_validate_json(workspace.get(f"exports/{name}/dataset.json").data)
    except (ObjectMissingError, ValidationError):
        return None
    uri = f"{workspace.uri.rstrip('/')}/exports/{name}"
    return ExportStatus(uri=uri, images=summary.images, annotations=summary.annotations)
