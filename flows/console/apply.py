"""The table of `vouch apply`."""

from rich.console import Console

from flows.console.output import say, table_of
from flows.console.streams import printable
from flows.console.summary import print_export
from schemas.records import ApplySummary


def print_applied(console: Console, summary: ApplySummary) -> None:
    """Print what a policy has changed, class by class, and what holds from now on."""
    table = table_of("class", "accepted before", "accepted now", "review before", "review now")
    for name, change in summary.classes.items():
        counts = (change.before.accepted, change.after.accepted, change.before.review, change.after.review)
        table.add_row(printable(name), *(f"{count:,}" for count in counts))
    before, now = summary.accepted_before, summary.accepted
    totals = (before, now, summary.labels - before, summary.labels - now)
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in totals))
    say(console, f"run {summary.run}: {summary.changed:,} of {summary.labels:,} labels are decided otherwise")
    console.print(table)
    say(console, f"policy in force: {summary.policy}, before: {summary.policy_before}")
    say(console, f"accepted by: {summary.policy_basis}")
    if summary.pending:
        say(console, f"{summary.pending:,} images are not labelled yet; `vouch run` does them, by the same policy")
    if summary.export is not None:
        print_export(console, summary.export)
    say(console, f"workspace: {summary.workspace}")
