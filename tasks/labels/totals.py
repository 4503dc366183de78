"""Counts the images and labels of a run by outcome, and lists the images that failed with their reasons."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.records import ClassCounts, Marker, ShardCounts, Step
from vouch_labels.tasks.labels.read import current_markers
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import count, read_current, read_part
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

MOST_REASONS = 1000

_COLUMNS = ["key", "outcome", "step", "reason"]


@dataclass
class Totals:
    """Sums over the images that the source holds now; done + failed + pending = images."""

    images: int
    shards: int
    done: int = 0
    failed: int = 0
    shards_done: int = 0
    labels: int = 0
    classes: dict[str, ClassCounts] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def pending(self) -> int:
        """Images of shards that are not finished."""
        return self.images - self.done - self.failed

    @property
    def accepted(self) -> int:
        """Labels that a policy accepted."""
        return sum(entry.accepted for entry in self.classes.values())

    @property
    def review(self) -> int:
        """Labels that wait for a person."""
        return sum(entry.review for entry in self.classes.values())


def add_up(workspace: Store, run: str, ledger: Ledger, fingerprint: str) -> Totals:
    """Sum the markers of a run; shards that have lost images to later ones are counted row by row.

    Raises:
        StoreError: A marker or table is missing or damaged.
    """
    totals = Totals(images=ledger.count(), shards=len(ledger.shards()))
    for marker in current_markers(workspace, run, ledger, fingerprint):
        live = ledger.keys_of(marker.shard)
        _add(totals, marker.counts if len(live) == marker.counts.images else _count_live(workspace, marker, live))
    return totals


def _count_live(workspace: Store, marker: Marker, live: set[str]) -> ShardCounts:
    keys = pc.SetLookupOptions(value_set=pa.array(sorted(live), pa.string()))
    tables = {stage: read_part(workspace, marker.parts[stage], stage) for stage in ("images", "detect", "route")}
    images = tables["images"].filter(pc.call_function("is_in", [tables["images"]["key"]], keys))
    labels = pc.call_function("is_in", [tables["detect"]["key"]], keys)
    return count({"images": images} | {stage: tables[stage].filter(labels) for stage in ("detect", "route")})


def _add(totals: Totals, counts: ShardCounts) -> None:
    totals.done += counts.done
    totals.failed += counts.failed
    totals.labels += counts.labels
    totals.shards_done += 1
    for name, entry in counts.classes.items():
        before = totals.classes.get(name, ClassCounts())
        totals.classes[name] = ClassCounts(
            accepted=before.accepted + entry.accepted, review=before.review + entry.review
        )
    for reason, images in counts.reasons.items():
        known = reason in totals.reasons or len(totals.reasons) < MOST_REASONS
        totals.reasons[reason if known else "other reasons"] += images


class FailedImage(NamedTuple):
    """An image that failed."""

    key: str
    """Key relative to the source."""
    step: str
    """Step that failed."""
    reason: str
    """Why, in words."""


def campaign_failures(campaign: Campaign) -> Iterator[FailedImage]:
    """Yield every image of a campaign that failed under its last settings, in plan order; none before the first run.

    Raises:
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = read_current(workspace, run)
    if current is None:
        return
    with Ledger.load(workspace, run) as ledger:
        yield from failed_images(workspace, run, ledger, current.fingerprint)


def failed_images(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, *, step: Step | None = None
) -> Iterator[FailedImage]:
    """Yield the images that failed, at one step or at any, in plan order.

    Raises:
        StoreError: A marker or table is missing or damaged.
    """
    for marker in current_markers(workspace, run, ledger, fingerprint):
        if any(step is None or reason.startswith(f"{step}: ") for reason in marker.counts.reasons):
            live = ledger.keys_of(marker.shard)
            table = read_part(workspace, marker.parts["images"], "images", _COLUMNS)
            chosen = pc.equal(table["outcome"], "failed") if step is None else pc.equal(table["step"], step)
            for row in table.filter(chosen).to_pylist():
                if row["key"] in live:
                    yield FailedImage(row["key"], row["step"], row["reason"])
