"""What `vouch plan-reviews` says."""

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from flows.console.progress import spoken_time
from flows.console.streams import printable
from schemas.planned import Planned

_PURPOSES: Final = {
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
        _say(console, f"{planned.earlier_open:,} tasks of earlier plans still wait for an answer")
    plan = planned.plan
    _say(console, f"review plan {plan.number} of run {plan.run}")
    for words in planned.words:
        _say(console, f"- {words}")
    table = Table()
    table.add_column("why")
    table.add_column("tasks", justify="right")
    for purpose, count in plan.counts.items():
        table.add_row(_PURPOSES[purpose], f"{count:,}")
    console.print(table)
    _say(console, f"{planned.open:,} to be answered, about {spoken_time(plan.seconds)} at the usual pace")
    if out is not None:
        _say(console, f"tasks, blind, in the order to ask them: {out}")
    for number, command in enumerate(planned.next, 1):
        _say(console, f"next {number}: {command.replace('CAMPAIGN', str(campaign))}")


def _say(console: Console, words: str) -> None:
    console.print(printable(words), highlight=False, markup=False, soft_wrap=True)
