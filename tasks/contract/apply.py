"""Applies a policy to labels that are there: decides again, without a model or an image."""

import time
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaign import Campaign
from schemas.errors import UserError, WorkspaceBusyError
from schemas.policy import Policy
from schemas.records import ApplySummary, ClassChange, ClassCounts, Current, Marker
from tasks.collect.export import check_export_name, export_run
from tasks.collect.markers import current_markers
from tasks.collect.totals import add_up
from tasks.contract.applicable import policy_to_apply
from tasks.contract.in_force import put_in_force
from tasks.contract.run_labels import current_of
from tasks.plan.ledger import Ledger
from tasks.route.spoken import basis
from tasks.shard.events import OnEvent, Routing, ignore
from tasks.shard.markers import read_marker, write_current
from tasks.shard.parts import read_part
from tasks.shard.pipeline import rerouted, stages_fingerprint
from tasks.shard.reroute import reroute_shard
from tasks.store.lock import WorkspaceLock
from tasks.store.open import check_writable, open_store
from tasks.store.store import Store
from tasks.store.threads import map_ordered

_THREADS: Final = 4


def apply_policy(
    campaign: Campaign, version: str | None = None, on_event: OnEvent = ignore, *, export: bool = True
) -> ApplySummary:
    """Decide by a policy over all labels of a run, and put it in force for the runs to come.

    What it writes stands beside what was there: the decisions of earlier policies stay, and their markers. The record
    of the settings in use and that of the policy in force change last, so that an interruption changes nothing.

    Args:
        campaign: Names the run.
        version: Version of the policy; `none`: the thresholds of the campaign; None: the newest certified policy of the
            run that fits its labels.
        on_event: Told of progress.
        export: Write the data set at the end.

    Returns:
        What has changed.

    Raises:
        UserError: There are no labels, or no such policy, or it does not fit the labels or the campaign.
        VouchError: The workspace failed.
    """
    started = time.monotonic()
    workspace, run = open_store(campaign.workspace), campaign.run.name
    check_writable(workspace)
    if export:
        check_export_name(campaign, workspace)
    with WorkspaceLock(workspace, run) as lock, Ledger.load(workspace, run) as ledger:
        before = current_of(workspace, run)
        policy, in_force = policy_to_apply(campaign, workspace, before, version)
        after, changed = _route_all(workspace, run, ledger, before, policy, on_event)
        summary = _summary(workspace, run, ledger, before, after, changed, policy)
        if lock.lost:
            raise WorkspaceBusyError(f"run {run!r} was taken over by another process; nothing has changed")
        write_current(workspace, run, after)
        put_in_force(workspace, run, in_force)
        outcome = export_run(campaign, ledger, after, on_event) if export else None
    return summary.model_copy(update={"export": outcome, "seconds": round(time.monotonic() - started, 3)})


def _route_all(
    workspace: Store, run: str, ledger: Ledger, before: Current, policy: Policy, on_event: OnEvent
) -> tuple[Current, int]:
    """Decide over every shard that is done; the settings under which that stands, and the labels decided otherwise."""
    fingerprint, labels, changed = None, 0, 0
    markers = current_markers(workspace, run, ledger, before.fingerprint)
    for marker, differing in _each(workspace, run, ledger, markers, policy):
        fingerprint = marker.fingerprint
        labels += marker.counts.labels
        changed += differing
        on_event(Routing(labels))
    if fingerprint is None:
        raise UserError(f"run {run!r} in {workspace.uri} has no finished shard yet; use `vouch run` first")
    return before.model_copy(update={"fingerprint": fingerprint, "policy": policy.version}), changed


def _each(
    workspace: Store, run: str, ledger: Ledger, markers: Iterator[Marker], policy: Policy
) -> Iterator[tuple[Marker, int]]:
    def one(older: Marker) -> tuple[Marker, int]:
        fingerprint = stages_fingerprint(rerouted(older.stages, policy))
        marker = read_marker(workspace, run, older.shard, fingerprint)
        if marker is None:
            marker = reroute_shard(workspace, run, older, policy)
        return marker, _differing(workspace, older, marker, ledger.keys_of(older.shard))

    return map_ordered(one, markers, _THREADS)


def _differing(workspace: Store, older: Marker, marker: Marker, live: set[str]) -> int:
    """Count the labels that two markers decide otherwise, of the images that the shard still holds."""
    if older.parts["route"] == marker.parts["route"]:
        return 0
    one, other = (read_part(workspace, each.parts["route"], "route", ["decision"]) for each in (older, marker))
    differ = pc.not_equal(one["decision"].combine_chunks(), other["decision"].combine_chunks())
    if len(live) < marker.counts.images:
        keys = read_part(workspace, marker.parts["detect"], "detect", ["key"])["key"].combine_chunks()
        differ = pc.and_(differ, pc.is_in(keys, value_set=pa.array(sorted(live), pa.string())))
    return int(pc.sum(differ).as_py() or 0)


def _summary(
    workspace: Store, run: str, ledger: Ledger, before: Current, after: Current, changed: int, policy: Policy
) -> ApplySummary:
    old, new = (add_up(workspace, run, ledger, settings.fingerprint) for settings in (before, after))
    classes = {
        name: ClassChange(before=old.classes.get(name, ClassCounts()), after=new.classes.get(name, ClassCounts()))
        for name in after.classes
    }
    return ApplySummary(
        run=run,
        workspace=workspace.uri,
        policy=policy.version,
        policy_basis=basis(policy),
        policy_before=before.policy,
        labels=new.labels,
        accepted_before=old.accepted,
        accepted=new.accepted,
        changed=changed,
        classes=classes,
        pending=new.pending,
        seconds=0,
        export=None,
    )
