"""Counts how the images and labels of a shard ended."""

from collections import Counter

import pyarrow as pa

from schemas.records import ClassCounts, ShardCounts
from tasks.route.router import ACCEPT, REVIEW
from tasks.shard.events import Progress


def count(tables: dict[str, pa.Table]) -> ShardCounts:
    """Count the rows of a shard's tables, or of a part of them."""
    images = tables["images"].select(["outcome", "step", "reason"]).to_pylist()
    reasons = Counter(f"{row['step']}: {row['reason']}" for row in images if row["outcome"] == "failed")
    pairs = zip(tables["detect"]["class_name"].to_pylist(), tables["route"]["decision"].to_pylist(), strict=True)
    decided = Counter(pairs)
    classes = {
        name: ClassCounts(accepted=decided[name, ACCEPT], review=decided[name, REVIEW])
        for name in sorted({name for name, _ in decided})
    }
    failed = sum(reasons.values())
    return ShardCounts(
        images=len(images),
        done=len(images) - failed,
        failed=failed,
        labels=sum(decided.values()),
        accepted=sum(entry.accepted for entry in classes.values()),
        review=sum(entry.review for entry in classes.values()),
        classes=classes,
        reasons=dict(sorted(reasons.items())),
    )


def progress_of(counts: ShardCounts) -> Progress:
    """Say counts as progress."""
    return Progress(counts.done, counts.failed, counts.accepted, counts.review)
