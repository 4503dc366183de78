"""What `vouch plan-reviews` says."""

from pathlib import Path
from typing import Final

from rich.console import Console

from flows.console.output import say, table_of
from flows.console.progress import spoken_time
from schemas.reviews import Planned

PURPOSES: Final = {
    "fit": "to fit the calibrator",
    "certify": "to certify",
    "audit": "blind audit of accepted labels",
    "plant": "known to be wrong",
    "doubtful": "to decide doubtful labels",
    "image": "images to be searched",
    "possible_miss": "classes that CLIP sees and no box shows",
}


def print_planned(console: Console, planned: Planned, out: Path | None, campaign: Path) -> None:
    """Print what was drawn and why, how long it takes, and what comes next."""
    if planned.earlier_open:
        say(console, f"{planned.earlier_open:,} tasks of earlier plans still wait for an answer")
    plan = planned.plan
    say(console, f"review plan {plan.number} of run {plan.run}")
    for words in planned.words:
        say(console, f"- {words}")
    table = table_of("why", "tasks")
    for purpose, count in plan.counts.items():
        table.add_row(PURPOSES[purpose], f"{count:,}")
    console.print(table)
    say(console, open_words(planned))
    if out is not None:
        say(console, f"tasks, blind, in the order to ask them: {out}")
    for number, command in enumerate(planned.next, 1):
        say(console, f"next {number}: {command.replace('CAMPAIGN', str(campaign))}")


def open_words(planned: Planned) -> str:
    """Say how much of a plan is to be answered, and who has answered the rest."""
    total = sum(planned.plan.counts.values())
    answered = total - planned.open
    simulated = min(planned.simulated, answered)
    if not planned.open:
        by = f" ({simulated:,} by a simulated reviewer)" if simulated else ""
        return f"0 to be answered: earlier verdicts answer every task of this plan already{by}"
    time = f"to be answered, about {spoken_time(planned.plan.seconds)} at the usual pace"
    if not answered:
        return f"{planned.open:,} {time}"
    words = f"{planned.open:,} of {total:,} {time}; {answered:,}"
    if simulated == answered:
        return f"{words} were answered by a simulated reviewer already"
    by = f", {simulated:,} of them by a simulated reviewer" if simulated else ""
    return f"{words} are answered already{by}"
