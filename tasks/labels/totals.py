"""Counts the images and labels of a run by outcome, and lists the images that failed with their reasons."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import ValidationError

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import ObjectMissingError
from vouch_labels.schemas.records import ClassCounts, Current, ShardCounts, Step, SumOfMarkers, Sums
from vouch_labels.tasks.fingerprint import fingerprint as fingerprint_of
from vouch_labels.tasks.labels.scan import Shard, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import COUNTED, count, read_current, shards_done
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

MOST_REASONS = 1000
FEW_FAILED = 3
"""Failed images that a status or summary names."""


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
    skipped: Counter[str] = field(default_factory=Counter)
    """Files that were planned and turned out to be no images, by kind; not among `images`."""
    misnamed: int = 0
    outside: int = 0
    """Labels that the policy would accept, if its certificate covered them."""

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

    def counts(self) -> ShardCounts:
        """The same as counts of one shard, of totals that began with no image."""
        return ShardCounts(
            images=self.done + self.failed + sum(self.skipped.values()),
            done=self.done,
            failed=self.failed,
            labels=self.labels,
            accepted=self.accepted,
            review=self.review,
            classes=self.classes,
            reasons=dict(self.reasons),
            skipped=dict(self.skipped),
            misnamed=self.misnamed,
            outside=self.outside,
        )

    def figures(self) -> dict[str, Any]:
        """What a status and a summary of the run say of it alike."""
        alike = ("images", "shards", "done", "failed", "pending", "labels", "accepted", "review", "misnamed", "outside")
        return {name: getattr(self, name) for name in alike} | {"reasons": dict(self.reasons.most_common())}


def add_up(workspace: Store, run: str, ledger: Ledger, fingerprint: str, *, keep: bool = False) -> Totals:
    """Sum the markers of a run; shards that have lost images to later ones are counted row by row.

    Sums that were kept are used where they are of the very shards that are done now, and of what these hold now: a
    marker never changes. With `keep` every marker is read, and the sums are kept.

    Raises:
        StoreError: A marker or table is missing or damaged.
    """
    known = {} if keep else _read_sums(workspace, run, fingerprint)
    held = ledger.held()
    groups: dict[str, list[str]] = {}
    for shard in sorted(held.keys() & set(shards_done(workspace, run, fingerprint))):
        groups.setdefault(shard[:2], []).append(shard)
    digests = {name: fingerprint_of([[shard, held[shard]] for shard in some]) for name, some in groups.items()}
    fresh = {name: known[name] for name in groups if name in known and known[name].digest == digests[name]}
    gathered = {name: Totals(0, 0) for name in groups if name not in fresh}
    others = {shard for name in gathered for shard in groups[name]}
    for one in shards(workspace, run, ledger, fingerprint, others) if others else ():
        _add(gathered[one.marker.shard[:2]], one.marker.counts if one.whole else _count_held(one))
    totals = Totals(images=ledger.count(), shards=len(held))
    sums = fresh | {
        name: SumOfMarkers(digest=digests[name], shards=part.shards_done, counts=part.counts())
        for name, part in gathered.items()
    }
    for part in sums.values():
        _add(totals, part.counts, part.shards)
    if keep:
        workspace.put(_sums_key(run, fingerprint), Sums(parts=sums).model_dump_json().encode())
    return totals


def _sums_key(run: str, fingerprint: str) -> str:
    return f"runs/{run}/sums/{fingerprint}.json"


def _read_sums(workspace: Store, run: str, fingerprint: str) -> dict[str, SumOfMarkers]:
    try:
        return Sums.model_validate_json(workspace.get(_sums_key(run, fingerprint)).data).parts
    except (ObjectMissingError, ValidationError):
        return {}  # they save time, and nothing else


def _count_held(shard: Shard) -> ShardCounts:
    labels = shard.labels(["class_name", "decision", "reason"])
    images = shard.images(COUNTED, outcome=None)
    return count({"images": images, "detect": labels, "route": labels})


def _add(totals: Totals, counts: ShardCounts, shards: int = 1) -> None:
    totals.done += counts.done
    totals.failed += counts.failed
    totals.images -= sum(counts.skipped.values())
    totals.skipped.update(counts.skipped)
    totals.misnamed += counts.misnamed
    totals.outside += counts.outside
    totals.labels += counts.labels
    totals.shards_done += shards
    for name, entry in counts.classes.items():
        before = totals.classes.get(name, ClassCounts())
        totals.classes[name] = ClassCounts(
            accepted=before.accepted + entry.accepted, review=before.review + entry.review
        )
    for reason, images in counts.reasons.items():
        known = reason in totals.reasons or len(totals.reasons) < MOST_REASONS
        totals.reasons[reason if known else "other reasons"] += images


def by_shown_name(classes: Mapping[str, ClassCounts], current: Current) -> dict[str, ClassCounts]:
    """Counts of every class of a run, by its present name."""
    return {shown: classes.get(name, ClassCounts()) for name, shown in zip(current.classes, current.shown, strict=True)}


class FailedImage(NamedTuple):
    """An image that failed."""

    key: str
    """Key relative to the source."""
    step: str
    """Step that failed."""
    reason: str


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


def first_failed(workspace: Store, run: str, ledger: Ledger, fingerprint: str) -> list[tuple[str, str, str]]:
    """Key, step and reason of the first few images that failed, in plan order.

    Raises:
        StoreError: A marker or table is missing or damaged.
    """
    found = islice(failed_images(workspace, run, ledger, fingerprint), FEW_FAILED)
    return [(image.key, image.step, image.reason) for image in found]


def failed_images(
    workspace: Store, run: str, ledger: Ledger, fingerprint: str, *, step: Step | None = None
) -> Iterator[FailedImage]:
    """Yield the images that failed, at one step or at any, in plan order.

    Raises:
        StoreError: A marker or table is missing or damaged.
    """
    sought = None if step is None else {"step": pa.array([step])}
    for shard in shards(workspace, run, ledger, fingerprint):
        if any(step is None or reason.startswith(f"{step}: ") for reason in shard.marker.counts.reasons):
            for row in shard.images(["key", "step", "reason"], sought, outcome="failed").to_pylist():
                yield FailedImage(**row)
