"""The table of `vouch simulate`."""

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from flows.console.output import say
from schemas.evaluation import SimulatedRow, Simulation, Spread

_GAIN: Final = ("certified", "automation", "9 of 10", "worst", "oracle", "naive", "review min", "s a box")
_PROMISE: Final = ("A worst", "A 9 of 10", "B worst", "B 9 of 10", "broken", "95% interval", "naive broken")


def print_simulation(console: Console, found: Simulation) -> None:
    """Print what was played, the table, how to read it, and the answers."""
    say(console, f"run {found.run} against {found.truth}, played with a simulated reviewer: a plan, not a certificate")
    right = "" if found.correct is None else f", {found.correct:.1%} of them correct"
    say(console, f"{found.labels:,} labels of {found.images:,} images have truth{right}")
    for why, count in found.without_truth.items():
        say(console, f"left out: {count:,} labels, {why}")
    if found.missed:
        known = f"measured with {found.plants:,} known-wrong plants" if found.plants else "and nobody measures it"
        say(console, f"the reviewer calls {found.missed:.0%} of the wrong labels correct, {known}")
    say(
        console,
        f"\n{found.draws:,} draws each; the promise: at least T of the {found.gate} labels correct, confidence "
        f"{found.confidence:g}",
    )
    say(console, "\nwhat is automated")
    console.print(_table(found, _GAIN, _gain))
    say(console, "\nwhat is true")
    console.print(_table(found, _PROMISE, _promise))
    for words in _notes(found):
        say(console, words)
    say(console, "")
    for answer in found.answers:
        say(console, answer.words)


def _table(found: Simulation, columns: Sequence[str], cells: Callable[[SimulatedRow], list[str]]) -> Table:
    table = Table()
    table.add_column("T")
    for name in ("reviews", *columns):
        table.add_column(name, justify="right")
    for row in found.rows:
        reviews = f"{row.reviews:,}" + (f" ({row.reviewed:,.0f})" if row.reviewed < row.reviews else "")
        table.add_row(f"{row.precision:g}", reviews, *cells(row))
    return table


def _gain(row: SimulatedRow) -> list[str]:
    shares = (row.certified, row.automation.median, row.automation.tenth, row.automation.worst, row.oracle, row.naive)
    seconds = "-" if row.seconds_per_box is None else f"{row.seconds_per_box:.2f}"
    return [*(f"{value:.0%}" for value in shares), f"{row.review_minutes:.0f}", seconds]


def _promise(row: SimulatedRow) -> list[str]:
    low, high = row.broken_interval
    precisions = (*_worst_and_tenth(row.accepted_precision), *_worst_and_tenth(row.delivered_precision))
    return [*precisions, f"{row.broken:.1%}", f"{low:.1%} to {high:.1%}", f"{row.naive_broken:.1%}"]


def _worst_and_tenth(values: Spread | None) -> tuple[str, str]:
    return ("-", "-") if values is None else (f"{values.worst:.3f}", f"{values.tenth:.3f}")


def _notes(found: Simulation) -> list[str]:
    notes = [
        "Automation: share of all labels accepted: median, what nine draws in ten reach, worst. A, B: true precision "
        "of the accepted, and of the delivered labels. Broken: share of draws whose promise is not kept; chance may "
        f"break {1 - found.confidence:.0%}.",
        "Oracle: who knows every label, ranks as we do, and keeps no image for fitting. Naive: the loosest threshold "
        "that looks good enough on as many reviews, without a test.",
    ]
    if found.seconds_per_box_by_hand is not None:
        notes.append(
            "s a box: seconds that people spend on reviews and routed labels for each delivered box; "
            f"{found.seconds_per_box_by_hand:.2f} if they look at every label."
        )
    if any(row.reviewed < row.reviews for row in found.rows):
        why = "the sides have no more labels" if found.gate == "delivered" else "the regions drawn from have no more"
        notes.append(
            f"In brackets: labels that were reviewed, for {why} ({found.labels:,} labels in all); none is drawn twice."
        )
    return notes
