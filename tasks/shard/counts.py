"""Counts how the images and labels of a shard ended."""

from collections import Counter
from typing import Any

import pyarrow as pa

from schemas.records import ClassCounts, ShardCounts
from tasks.route.router import ACCEPT, REVIEW
from tasks.shard.events import Progress


def count(tables: dict[str, pa.Table]) -> ShardCounts:
    """Count the rows of a shard's tables, or of a part of them."""
    images = tables["images"].select(["outcome", "step", "reason"]).to_pylist()
    reasons = Counter(f"{row['step']}: {row['reason']}" for row in images if row["outcome"] == "failed")
    failed = sum(reasons.values())
    return ShardCounts(
        images=len(images),
        done=len(images) - failed,
        failed=failed,
        reasons=dict(sorted(reasons.items())),
        **decision_counts(tables["detect"], tables["route"]),
    )


def decision_counts(detect: pa.Table, decisions: pa.Table) -> dict[str, Any]:
    """Count labels by class and decision: the fields of ShardCounts that a policy changes, and `labels`."""
    pairs = pa.table({"class": detect["class_name"], "decision": decisions["decision"]})
    rows = pairs.group_by(["class", "decision"]).aggregate([([], "count_all")]).to_pylist()
    decided = Counter({(row["class"], row["decision"]): row["count_all"] for row in rows})
    classes = {
        name: ClassCounts(accepted=decided[name, ACCEPT], review=decided[name, REVIEW])
        for name in sorted({name for name, _ in decided})
    }
    return {
        "labels": pairs.num_rows,
        "accepted": sum(entry.accepted for entry in classes.values()),
        "review": sum(entry.review for entry in classes.values()),
        "classes": classes,
    }


def progress_of(counts: ShardCounts) -> Progress:
    """Say counts as progress."""
    return Progress(counts.done, counts.failed, counts.accepted, counts.review)
