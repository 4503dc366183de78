"""Decides over the labels of a shard again, by another policy; nothing but the decisions is written."""

from typing import Final

from schemas.campaign import SIGNALS
from schemas.policy import Policy
from schemas.records import Marker
from schemas.tables import STAGES
from tasks.route.router import route
from tasks.shard.counts import decision_counts
from tasks.shard.markers import write_marker
from tasks.shard.parts import read_part, write_part
from tasks.shard.pipeline import rerouted, stages_fingerprint
from tasks.statistics.calibrator import Calibrator
from tasks.store.store import Store

_ALWAYS: Final = {
    "images": ("key", "sha256"),
    "detect": ("label_id", "key", "class_name"),
    "segment": ("label_id",),
    "score": ("label_id",),
}
"""Stage -> columns that the router needs for any policy."""


def reroute_shard(workspace: Store, run: str, older: Marker, policy: Policy) -> Marker:
    """Decide over the labels of a shard again.

    Args:
        workspace: The workspace.
        run: Name of the run.
        older: A marker of the shard; its tables but the decisions are taken over, and it stays.
        policy: What decides.

    Returns:
        The marker under that policy, written or found.

    Raises:
        StoreError: A table is missing or damaged.
        VouchError: The tables are not of the same labels.
        UserError: The policy cannot be used for these labels.
    """
    tables = {
        stage: read_part(workspace, older.parts[stage], stage, columns) for stage, columns in _columns(policy).items()
    }
    decisions = route(tables["images"], tables["detect"], tables["segment"], tables["score"], policy)
    stages = rerouted(older.stages, policy)
    marker = Marker(
        shard=older.shard,
        fingerprint=stages_fingerprint(stages),
        stages=stages,
        parts={**older.parts, "route": write_part(workspace, run, older.shard, "route", decisions)},
        counts=older.counts.model_copy(update=decision_counts(tables["detect"], decisions)),
    )
    return write_marker(workspace, run, marker)


def _columns(policy: Policy) -> dict[str, list[str]]:
    """Stage -> the columns that the router will look at."""
    if policy.certification is not None:
        signals = Calibrator.from_dict(policy.certification.calibrator).signals
    else:
        signals = SIGNALS
    return {
        stage: [*always, *(name for name in signals if stage != "images" and name in STAGES[stage].names)]
        for stage, always in _ALWAYS.items()
    }
