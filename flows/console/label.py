"""Renders the tables of `vouch run` and `vouch status`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from vouch_labels.flows.console.output import say
from vouch_labels.flows.console.progress import spoken_time
from vouch_labels.schemas.records import ClassCounts, ExportOutcome, PolicyStatus, RunStatus, RunSummary

MOST_REASONS: Final = 12


def print_summary(console: Console, summary: RunSummary) -> None:
    """Print the figures of a run, its classes, why images failed, and where the output lies."""
    console.print(_figures(summary))
    if summary.classes:
        console.print(class_table(summary.classes))
    print_reasons(console, summary.reasons)
    for shard, reason in sorted(summary.shard_errors.items()):
        say(console, f"shard {shard} could not be finished: {reason}")
    if summary.policy_expired:
        say(
            console,
            f"The policy has EXPIRED: {summary.policy_expired}. Every label waits for review until you certify again: "
            "`vouch plan-reviews` tells what to review.",
        )
    elif not summary.accepts:
        say(
            console,
            "Nothing was accepted: no threshold allows it. Every label waits for review; `vouch plan-reviews` tells "
            "what to review so that a threshold can be certified. To accept labels on your own word, set "
            "routing.accept and run again (only the routing is done again).",
        )
    if summary.export is not None:
        print_export(console, summary.export)
    say(console, f"workspace: {summary.workspace}")


def class_table(classes: Mapping[str, ClassCounts]) -> Table:
    """Accepted and waiting labels of each class."""
    table = Table("class", title_justify="left")
    for name in ("accepted", "review"):
        table.add_column(name, justify="right")
    for name, counts in classes.items():
        table.add_row(name, f"{counts.accepted:,}", f"{counts.review:,}")
    return table


def print_reasons(console: Console, reasons: Mapping[str, int]) -> None:
    """Print why images failed, the most frequent reasons first."""
    ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    for reason, count in ordered[:MOST_REASONS]:
        say(console, f"{count:,} image{'s' if count > 1 else ''} failed: {reason}")
    if len(ordered) > MOST_REASONS:
        rest = sum(count for _, count in ordered[MOST_REASONS:])
        say(console, f"{rest:,} more images failed, for other reasons")
    if ordered:
        say(console, "`vouch status CAMPAIGN --failed` names every image that failed")


def print_export(console: Console, export: ExportOutcome) -> None:
    """Say where the data set lies, and what a reader of its images must know."""
    say(console, f"data set: {export.annotations_file}")
    for file in export.split_files:
        say(console, f"    split: {file}")
    if export.images_rotated:
        say(
            console,
            f"{export.images_rotated:,} of its images carry an EXIF orientation, and boxes are those of the upright "
            "image: OpenCV turns it by itself, with Pillow call ImageOps.exif_transpose",
        )
    if export.images_missed:
        say(
            console,
            f"{export.images_missed:,} of its images could not be put beside the annotations: gone, changed since they "
            "were labelled, or with a key that no file can have; run again, or leave them out in training",
        )


def _figures(summary: RunSummary) -> Table:
    table = Table(show_header=False, title=f"run {summary.run}", title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    images = f"{summary.images:,} ({summary.new_images:,} new or changed, {summary.removed_images:,} removed)"
    rows = {
        "images": images,
        "done": f"{summary.done:,}",
        "failed": f"{summary.failed:,}",
        "pending": f"{summary.pending:,}",
        "labels": f"{summary.labels:,}",
        "accepted": f"{summary.accepted:,}",
        "review": f"{summary.review:,}",
        "shards": f"{summary.shards:,} ({summary.shards_processed:,} processed now)",
        "time": spoken_time(summary.seconds),
        "speed": f"{summary.images_per_second:.1f} images/s while labelling",
        "policy": summary.policy,
        "accepted by": summary.policy_basis,
    }
    for name, value in rows.items():
        if name != "pending" or summary.pending:
            table.add_row(name, value)
    return table


def print_status(console: Console, status: RunStatus, campaign: Path) -> None:
    """Print how far a run is, what decides, and what comes next."""
    table = Table(show_header=False, title=f"run {status.run}", title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "now": _now(status),
        "shards": f"{status.shards_done:,} of {status.shards:,} done",
        "images": f"{status.images:,}",
        "done": f"{status.done:,}",
        "failed": f"{status.failed:,}",
        "pending": f"{status.pending:,}",
        "labels": f"{status.labels:,}",
        "accepted": f"{status.accepted:,}",
        "review": f"{status.review:,}",
        "decided by": status.policy or "no policy yet",
        "review tasks": f"{status.reviews.open:,} open, {_plural(status.reviews.plans, 'plan')} so far",
        "verdicts": _verdicts(status),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    if status.labels:
        console.print(class_table(status.classes))
    print_reasons(console, status.reasons)
    export = status.export
    words = (
        f"{export.uri} ({export.images:,} images, {export.annotations:,} annotations)" if export else "not written yet"
    )
    for line in (
        _policy(status.in_force),
        f"data set: {words}",
        f"workspace: {status.workspace}",
        f"next: {status.next.replace('CAMPAIGN', str(campaign))}",
    ):
        say(console, line)


def _policy(policy: PolicyStatus) -> str:
    if policy.problem:
        return "policy in force: none that can be used"
    words = f"policy in force: {policy.version} ({policy.basis})"
    return f"{words}; it has EXPIRED: {policy.expired}" if policy.expired else words


def _verdicts(status: RunStatus) -> str:
    simulated = f" ({status.reviews.simulated:,} by a simulated reviewer)" if status.reviews.simulated else ""
    return f"{status.reviews.verdicts:,}{simulated}"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _now(status: RunStatus) -> str:
    if status.running:
        return f"running: {status.running}"
    return "resting" if status.shards else "not begun: vouch run begins it"
