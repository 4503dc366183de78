"""Applies a policy to labels that exist: routes them again without a model or an image, and activates it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pyarrow.compute as pc

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError, WorkspaceBusyError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import ApplySummary, ClassChange, ClassCounts, Current, Marker
from vouch_labels.tasks.arrow import flat
from vouch_labels.tasks.certify.active import NONE, activate, check_classes_labelled, guarantee_of
from vouch_labels.tasks.certify.monitor import expired_reason
from vouch_labels.tasks.certify.rounds import newest_certified
from vouch_labels.tasks.export.export import check_export_name, export_run
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.scan import Shard, shards
from vouch_labels.tasks.labels.totals import add_up
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.same_campaign import check_same_campaign
from vouch_labels.tasks.policy import (
    basis,
    check_fits,
    check_guarantee,
    default_policy,
    read_coverage,
    read_policy,
    write_policy,
)
from vouch_labels.tasks.shard.events import OnEvent, Routing, ignore
from vouch_labels.tasks.shard.files import read_marker, write_current
from vouch_labels.tasks.shard.pipeline import rerouted, stages_fingerprint
from vouch_labels.tasks.shard.reuse import reroute_shard
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import check_writable, open_workspace
from vouch_labels.tasks.store.store import Store, map_ordered

_THREADS: Final = 4


def apply_policy(
    campaign: Campaign, version: str | None = None, on_event: OnEvent = ignore, *, export: bool = True
) -> ApplySummary:
    """Decide by a policy over all labels of a run, and activate it for the runs to come.

    What it writes stands beside what was there: the decisions of earlier policies stay, and their markers. The record
    of the settings in use and that of the active policy change last, so that an interruption changes nothing. version:
    None for the newest certified policy of the run that fits its labels, `none` for the thresholds of the campaign.

    Raises:
        UserError: There are no labels, or they seem to be another campaign's; or there is no such policy, or it does
            not fit the labels or the campaign.
        VouchError: The workspace failed.
    """
    started = time.monotonic()
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    check_writable(workspace)
    if export:
        check_export_name(campaign, workspace)
    with WorkspaceLock(workspace, run) as lock, Ledger.load(workspace, run) as ledger:
        before = current_of(workspace, run)
        policy, active = policy_to_apply(campaign, workspace, before, version)
        check_same_campaign(workspace, campaign, before.classes, ledger)
        after, changed = _route_all(workspace, run, ledger, before, policy, on_event)
        summary = _summary(workspace, run, ledger, before, after, changed, policy)
        if lock.lost:
            raise WorkspaceBusyError(f"run {run!r} was taken over by another process; nothing has changed")
        write_current(workspace, run, after)
        activate(workspace, run, active)
        outcome = None
        if export:
            guarantee = guarantee_of(campaign, workspace, policy.version)
            outcome = export_run(campaign, ledger, after, guarantee, on_event)
    return summary.model_copy(update={"export": outcome, "seconds": round(time.monotonic() - started, 3)})


def _route_all(
    workspace: Store, run: str, ledger: Ledger, before: Current, policy: Policy, on_event: OnEvent
) -> tuple[Current, int]:
    """Decide over every shard that is done; the settings under which that stands, and the labels decided otherwise."""
    fingerprint, labels, changed = None, 0, 0
    for marker, differing in _each(workspace, run, ledger, before, policy):
        fingerprint = marker.fingerprint
        labels += marker.counts.labels
        changed += differing
        on_event(Routing(labels))
    if fingerprint is None:
        raise UserError(f"run {run!r} in {workspace.uri} has no finished shard yet; use `vouch run` first")
    stages = rerouted(before.stages, policy) if before.stages else {}
    return before.model_copy(update={"fingerprint": fingerprint, "stages": stages, "policy": policy.version}), changed


def _each(workspace: Store, run: str, ledger: Ledger, before: Current, policy: Policy) -> Iterator[tuple[Marker, int]]:
    known: dict[tuple[tuple[str, str], ...], tuple[dict[str, str], str]] = {}

    def one(older: Shard) -> tuple[Marker, int]:
        # Shards of a run mostly have the same stages, and to name them takes as long as to decide over a shard.
        place = tuple(older.marker.stages.items())
        if place not in known:
            rerouted_stages = rerouted(older.marker.stages, policy)
            known[place] = rerouted_stages, stages_fingerprint(rerouted_stages)
        stages, fingerprint = known[place]
        marker = read_marker(workspace, run, older.marker.shard, fingerprint)
        if marker is None:
            marker = reroute_shard(workspace, run, older.marker, policy, stages)
        return marker, _differing(older, replace(older, marker=marker))

    return map_ordered(one, shards(workspace, run, ledger, before.fingerprint), _THREADS)


def _differing(older: Shard, newer: Shard) -> int:
    """Count the labels that two markers of a shard decide differently."""
    if older.marker.parts["route"] == newer.marker.parts["route"]:
        return 0
    one, other = (flat(shard.labels(["decision"])["decision"]) for shard in (older, newer))
    return int(pc.sum(pc.not_equal(one, other)).as_py() or 0)


def _summary(
    workspace: Store, run: str, ledger: Ledger, before: Current, after: Current, changed: int, policy: Policy
) -> ApplySummary:
    old = add_up(workspace, run, ledger, before.fingerprint)
    new = add_up(workspace, run, ledger, after.fingerprint, keep=True)
    classes = {
        shown: ClassChange(before=old.classes.get(name, ClassCounts()), after=new.classes.get(name, ClassCounts()))
        for name, shown in zip(after.classes, after.shown, strict=True)
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


def policy_to_apply(
    campaign: Campaign, workspace: Store, current: Current, version: str | None
) -> tuple[Policy, str | None]:
    """Read the policy to apply, and make sure that it fits the labels and what the campaign asks for.

    version as in `apply_policy`, but None stands first for what routing.policy names. Returned is also the version to
    activate; None: the thresholds of the campaign.

    Raises:
        UserError: There is none, or it cannot be applied.
        StoreError: The record of what it covers is missing or damaged.
    """
    _check_campaign(campaign, current, version)
    asked = version if version is not None else campaign.routing.policy
    if asked is None:
        asked = _newest(workspace, campaign, current)
    if asked.lower() == NONE:
        policy = default_policy(campaign.classes, campaign.routing)
        write_policy(workspace, policy)
        return policy, None
    policy = read_policy(workspace, asked, campaign.classes, "routing.policy" if version is None else "--policy")
    _check_inputs_known(policy, current)
    check_fits(policy, current.inputs)
    check_guarantee(policy, campaign.routing)
    read_coverage(workspace, policy)
    reason = expired_reason(workspace, campaign.run.name, policy)
    if reason is not None:
        raise UserError(f"policy {policy.version} has expired: {reason}")
    return policy, policy.version


def _check_campaign(campaign: Campaign, current: Current, version: str | None) -> None:
    check_classes_labelled(campaign, current)
    named = campaign.routing.policy
    if version is not None and named is not None and named != version:
        raise UserError(
            f"routing.policy: the campaign names {named}, and its next run would undo this; remove it there first"
        )


def _newest(workspace: Store, campaign: Campaign, current: Current) -> str:
    run = campaign.run.name
    policy = newest_certified(campaign, workspace, current)
    if policy is None:
        raise UserError(
            f"no policy was certified for run {run!r} in {workspace.uri}; `vouch certify` makes one of verdicts, and "
            "`vouch plan-reviews` tells what to review for it (--policy names one of another run)"
        )
    _check_inputs_known(policy, current)
    # One that does not fit is refused by the checks that follow, which say why.
    return policy.version


def _check_inputs_known(policy: Policy, current: Current) -> None:
    if policy.certification is not None and not current.inputs:
        raise UserError(
            "the labels come from an earlier version of Vouch, which did not record what they depend on; use "
            "`vouch run` once more, and nothing is labelled again"
        )
