"""Renders the tables of `vouch certify`, `apply` and `simulate`."""

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from vouch_labels.flows.console.label import print_export
from vouch_labels.flows.console.output import printable, say, table_of
from vouch_labels.schemas.evaluation import SimulatedRow, Simulation, Spread
from vouch_labels.schemas.policy import Certified
from vouch_labels.schemas.records import ApplySummary
from vouch_labels.tasks.reviews.plans import minutes_for

GROUP_HEAD: Final = ("group", "n", "wrong", "at most", "allowed", "p ≥", "accepted", "precision A", "precision B")
MOST_NAMED: Final = 8
# Nobody is asked what has an answer, and all runs of a workspace share its verdicts.
PEOPLE: Final = (
    "for people to answer instead: another workspace.uri in the campaign file, then vouch run CAMPAIGN and vouch "
    "review CAMPAIGN; or import their verdicts on all labels of this sample: vouch verdicts CAMPAIGN FILE"
)

_GAIN: Final = ("certified", "automation", "9 of 10", "worst", "oracle", "naive", "review min", "s a box")
_PROMISE: Final = ("A worst", "A 9 of 10", "B worst", "B 9 of 10", "broken", "95% interval", "naive broken")


def print_certified(console: Console, found: Certified) -> None:
    """Print the certificates, what they allow, and what is not certified."""
    tested = sum(group.certificate is not None and group.certificate.reviewed > 0 for group in found.groups)
    say(
        console,
        f"run {found.run}: at least {found.precision:.4g} of {found.gate} labels correct, confidence "
        f"{found.confidence:.4g}; look {found.look}, tested at {found.delta:.4g} for {tested} "
        f"group{'s' if tested != 1 else ''}",
    )
    if found.simulated:
        say(console, "simulated reviewer: a program answered from ground truth, so this certifies nothing")
        say(console, PEOPLE)
    if rows := group_rows(found):
        console.print(_groups(rows))
    for group in found.groups:
        if group.certificate is not None and group.certificate.refusal:
            say(console, f"{group.name}: not certified: {group.certificate.refusal}")
    if words := not_sampled_words(found):
        say(console, words)
    if found.classes:
        say(console, "by class, accepted labels, drawn towards their group; not certified:")
        console.print(_classes(found))
    reviewers = found.reviewers
    if reviewers.planted:
        say(
            console,
            f"reviewers missed {reviewers.missed} of {reviewers.planted} known-wrong labels: at most "
            f"{reviewers.accepted:.3f} of those that may be accepted, {reviewers.routed:.3f} of the others",
        )
    for remark in found.remarks:
        say(console, remark)
    if found.version is not None:
        share = found.accepted / found.labels if found.labels else 0.0
        say(
            console,
            f"policy {found.version} accepts {found.accepted:,} of {found.labels:,} labels ({share:.1%}); "
            f"{found.kept_for_fitting:,} are on images kept for fitting and go to people",
        )
        say(console, "it is in force already" if found.in_force else "put it in force: vouch apply CAMPAIGN")
    say(console, f"workspace: {found.workspace}")


def refusal(found: Certified) -> str:
    """Say in one line that nothing could be certified, and what to do."""
    words = "nothing could be certified, so no policy was written"
    if found.more_reviews is None:
        return f"{words}; the reasons stand with each group"
    return (
        f"{words}; about {found.more_reviews:,} more reviews may do: vouch plan-reviews CAMPAIGN --minutes "
        f"{minutes_for(found.more_reviews)}"
    )


def group_rows(found: Certified) -> list[tuple[str, ...]]:
    """The cells of GROUP_HEAD for every group that was tested on sampled labels."""
    return [
        (
            group.name,
            f"{one.reviewed:,}",
            f"{one.errors:,}",
            f"{one.bound:.4f}",
            f"{one.limit:.4f}",
            "-" if group.p_correct is None else f"{group.p_correct:.4f}",
            f"{one.accepted / one.labels:.1%}" if one.labels else "-",
            _precision(one.accepted_precision, one.accepted_at_least),
            _precision(one.delivered_precision, one.delivered_at_least),
        )
        for group in found.groups
        if (one := group.certificate) is not None and one.reviewed
    ]


def not_sampled_words(found: Certified) -> str:
    """Say which classes had no label in the sample; empty where each had one."""
    names = found.not_sampled
    if not names:
        return ""
    shown = ", ".join(names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        shown += f" and {len(names) - MOST_NAMED:,} more"
    if len(names) == 1:
        return f"1 class has no label in the sample, so nothing is known of it and its labels go to people: {shown}"
    return (
        f"{len(names):,} classes have no label in the sample, so nothing is known of them and their labels go to "
        f"people: {shown}"
    )


def _precision(value: float | None, at_least: float) -> str:
    return "-" if value is None else f"{value:.3f} (≥{at_least:.3f})"


def _groups(rows: list[tuple[str, ...]]) -> Table:
    table = table_of(*GROUP_HEAD)
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    return table


def _classes(found: Certified) -> Table:
    table = table_of("class", "accepted", "reviewed", "wrong", "precision")
    for one in found.classes:
        shown = "-" if one.precision is None else f"{one.precision:.3f}"
        table.add_row(printable(one.name), f"{one.accepted:,}", f"{one.reviewed:,}", f"{one.errors:,}", shown)
    return table


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
