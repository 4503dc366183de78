"""The tables of `vouch status`."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.console.output import say
from flows.console.summary import class_table, print_reasons
from schemas.records import PolicyStatus, RunStatus


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
