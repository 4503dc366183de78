"""What `vouch review` says."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from flows.console.output import say, table_of
from flows.console.planned import PURPOSES
from flows.console.progress import spoken_time
from flows.console.streams import Terminal
from schemas.queue import PullOutcome, QueueStatus

KEYS: Final = (
    "Alt+T take a batch; Alt+Enter correct, or as you drew it; Alt+1 ... Alt+9 another class; Alt+B bad box",
    "Alt+N not an object; Alt+M free the box of its mask; Alt+D draw a missing box; Alt+G the crop grid; Alt+S skip; "
    "Alt+Z undo",
)


def spoken(terminal: Terminal) -> Callable[[str], None]:
    """Give a function that remarks a line."""

    def remark(words: str) -> None:
        say(terminal.remarks(), words)

    return remark


def print_desks(console: Console, addresses: Mapping[str, str], *, has_own_tokens: bool) -> None:
    """Print where each reviewer works, the keys, and how to end.

    Args:
        console: Where to.
        addresses: Reviewer -> address.
        has_own_tokens: The addresses carry no token: whoever opens them types his own.
    """
    for reviewer, address in addresses.items():
        say(console, f"{reviewer}: {address}")
    if has_own_tokens:
        say(console, "each page asks for the reviewer's own token")
    else:
        say(console, "whoever has an address can answer as that reviewer: give it to nobody else")
    for line in KEYS:
        say(console, line)
    say(console, "Ctrl-C ends the review: desks are cleared, and the answers go into the workspace")


def print_pulled(console: Console, pulled: PullOutcome) -> None:
    """Print what came into the workspace."""
    if pulled.answers:
        say(console, f"{pulled.verdicts:,} new verdicts of {pulled.answers:,} answers are in the workspace")
    elif pulled.earlier:
        are = "answer is" if pulled.earlier == 1 else "answers are"
        say(console, f"nothing new: {pulled.earlier:,} {are} in the workspace already")
    else:
        say(console, "nothing new: there is no answer yet")
    if pulled.known:
        say(console, f"{pulled.known:,} were there already")
    if pulled.late:
        named = ", ".join(pulled.late_items)
        say(console, f"{pulled.late:,} answers came too late and do not count: {named}")


def print_written(console: Console, path: Path, rows: int) -> None:
    """Print where answers went."""
    say(console, f"{rows:,} verdicts in {path}")


def print_queue(console: Console, status: QueueStatus) -> None:
    """Print how far the queue is, by purpose and by reviewer."""
    table = table_of("why", "open", "on desks", "answered", "not asked any more")
    for purpose, counts in status.purposes.items():
        figures = (counts.open, counts.leased, counts.answered, counts.gone)
        table.add_row(PURPOSES[purpose], *(f"{figure:,}" for figure in figures))
    say(console, f"review queue {status.queue} of run {status.run}")
    console.print(table)
    if status.reviewers:
        people = table_of("reviewer", "answered", "on the desk", "time")
        for reviewer, did in status.reviewers.items():
            people.add_row(reviewer, f"{did.answered:,}", f"{did.mine:,}", spoken_time(did.seconds))
        console.print(people)
    if status.twice:
        agreed = "" if status.agreement is None else f", and agree on {status.agreement:.1%}"
        say(console, f"two people answered {status.twice:,} items{agreed}")
    if status.edit_iou is not None:
        overlap = f"with a median IoU of {status.edit_iou:.2f} to the new ones"
        say(console, f"{status.edited:,} boxes were corrected, {overlap}")
    if status.unpulled:
        say(console, f"{status.unpulled:,} answers are not in the workspace yet; vouch review --pull brings them there")
    if status.late:
        say(console, f"{status.late:,} answers came too late, and do not count")
    pace = "reviewers' own" if status.own_pace else "usual"
    say(console, f"about {spoken_time(status.minutes_left * 60)} left at the {pace} pace")
