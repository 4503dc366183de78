"""The tables of `vouch verdicts`."""

from collections.abc import Sequence

from rich.console import Console

from flows.console.output import say, table_of
from flows.console.progress import spoken_time
from flows.console.streams import printable
from schemas.reviews import LABEL_VERDICTS, ImportOutcome, VerdictFigures

_MOST_DISPUTED = 10


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
