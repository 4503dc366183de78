"""The tables of `vouch status`."""

from rich.console import Console
from rich.table import Table

from flows.console.summary import class_table, print_reasons
from schemas.status import RunStatus


def print_status(console: Console, status: RunStatus) -> None:
    """Print how far a run is."""
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
        "policy": status.policy or "none yet",
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
    for line in (f"data set: {words}", f"workspace: {status.workspace}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _now(status: RunStatus) -> str:
    if status.running:
        return f"running: {status.running}"
    return "resting" if status.shards else "not begun: vouch run begins it"
