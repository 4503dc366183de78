"""Renders the output of `vouch plan-reviews`, `review` and `verdicts`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from vouch_labels.flows.console.output import Terminal, printable, say, table_of
from vouch_labels.flows.console.progress import spoken_time
from vouch_labels.schemas.queue import PullOutcome, QueueStatus
from vouch_labels.schemas.reviews import LABEL_VERDICTS, ImportOutcome, Planned, VerdictFigures

KEYS: Final = (
    "Alt+T take a batch; Alt+Enter correct, or as you drew it; Alt+1 ... Alt+9 another class; Alt+B bad box",
    "Alt+N not an object; Alt+M free the box of its mask; Alt+D draw a missing box; Alt+G the crop grid; Alt+S skip; "
    "Alt+Z undo",
)

_MOST_DISPUTED = 10


def spoken(terminal: Terminal) -> Callable[[str], None]:
    """Give a function that remarks a line."""

    def remark(words: str) -> None:
        say(terminal.remarks(), words)

    return remark


def print_sessions(console: Console, addresses: Mapping[str, str], *, has_own_tokens: bool) -> None:
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
    say(console, "Ctrl-C ends the review: sessions are closed, and the answers go into the workspace")


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
    table = table_of("why", "open", "leased", "answered", "not asked any more")
    for purpose, counts in status.purposes.items():
        figures = (counts.open, counts.leased, counts.answered, counts.gone)
        table.add_row(PURPOSES[purpose], *(f"{figure:,}" for figure in figures))
    say(console, f"review queue {status.queue} of run {status.run}")
    console.print(table)
    if status.reviewers:
        people = table_of("reviewer", "answered", "leased", "time")
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


def print_imports(console: Console, outcomes: Sequence[ImportOutcome]) -> None:
    """Print what became of the rows of imported files."""
    for outcome in outcomes:
        parts = [f"{outcome.imported:,} of {outcome.rows:,} rows imported"]
        parts += [f"{outcome.known:,} were there already"] if outcome.known else []
        parts += [f"{outcome.unanswered:,} without a verdict"] if outcome.unanswered else []
        say(console, f"{outcome.file}: {', '.join(parts)}")
        if outcome.refused:
            say(console, f"    {outcome.refused:,} refused, with reasons: {outcome.refused_file}")
        if outcome.unknown_labels:
            say(
                console,
                f"    {outcome.unknown_labels:,} are on labels that this run does not have (other models, or another "
                "run); they are kept, and count for nothing here",
            )
        if outcome.unknown_images:
            say(console, f"    {outcome.unknown_images:,} are on images that this run does not have; they are kept")


def print_figures(console: Console, figures: VerdictFigures) -> None:
    """Print what the verdicts of a workspace say of a run."""
    if not figures.verdicts:
        say(console, "there are no verdicts yet; `vouch verdicts CAMPAIGN FILE` imports some")
        return
    say(
        console,
        f"run {figures.run}: {figures.labels:,} labels reviewed, {figures.images_checked:,} images checked, "
        f"{figures.missed_objects:,} missed objects; {figures.verdicts:,} verdicts, {spoken_time(figures.seconds)}",
    )
    _print_classes(console, figures)
    _print_reviewers(console, figures)
    if figures.agreement is not None:
        say(console, f"{figures.doubly_reviewed:,} labels reviewed by several: {figures.agreement:.1%} agreement")
    disputed = figures.answers.get("disputed", 0)
    if disputed:
        shown = ", ".join(figures.disputed[:_MOST_DISPUTED])
        more = " ..." if disputed > _MOST_DISPUTED else ""
        say(console, f"{disputed:,} labels are disputed and stay undecided: {shown}{more}")
    if figures.planted:
        say(console, f"{figures.planted:,} answers are on planted labels, which test reviewers")
    if figures.unknown_labels:
        say(console, f"{figures.unknown_labels:,} answers are on labels that this run does not have")
    if figures.simulated:
        say(console, f"{figures.simulated:,} verdicts came from a simulated reviewer")


def _print_classes(console: Console, figures: VerdictFigures) -> None:
    names = [name for name in (*LABEL_VERDICTS, "disputed") if name in figures.answers]
    table = table_of("class", *(name.replace("_", " ") for name in names))
    for name, answers in figures.classes.items():
        if answers:
            table.add_row(printable(name), *(f"{answers.get(answer, 0):,}" for answer in names))
    if figures.answers:
        console.print(table)


def _print_reviewers(console: Console, figures: VerdictFigures) -> None:
    table = table_of("reviewer", "labels", "correct", "about images", "time")
    for name, one in figures.reviewers.items():
        share = f"{one.correct / one.labels:.0%}" if one.labels else "-"
        table.add_row(printable(name), f"{one.labels:,}", share, f"{one.images:,}", spoken_time(one.seconds))
    console.print(table)
