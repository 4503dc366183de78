"""The tables of `vouch certify`."""

from typing import Final

from rich.console import Console
from rich.table import Table

from flows.console.output import say, table_of
from flows.console.streams import printable
from schemas.policy import Certified
from tasks.reviews.plans import minutes_for

GROUP_HEAD: Final = ("group", "n", "wrong", "at most", "allowed", "p ≥", "accepted", "precision A", "precision B")
MOST_NAMED: Final = 8
# Nobody is asked what has an answer, and all runs of a workspace share its verdicts.
PEOPLE: Final = (
    "for people to answer instead: another workspace.uri in the campaign file, then vouch run CAMPAIGN and vouch "
    "review CAMPAIGN; or import their verdicts on all labels of this sample: vouch verdicts CAMPAIGN FILE"
)


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
