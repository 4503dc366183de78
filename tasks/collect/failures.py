"""Names the images that failed, and why."""

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow.compute as pc

from schemas.campaign import Campaign
from schemas.records import Step
from tasks.collect.markers import current_markers
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_current, read_part
from tasks.store.open import open_store
from tasks.store.store import Store

_COLUMNS = ["key", "outcome", "step", "reason"]


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
    workspace, run = open_store(campaign.workspace), campaign.run.name
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
