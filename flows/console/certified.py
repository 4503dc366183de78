"""The tables of `vouch certify`."""

from rich.console import Console
from rich.table import Table

from flows.console.streams import printable
from schemas.certified import Certified
from schemas.policy import GroupCertificate


def print_certified(console: Console, found: Certified) -> None:
    """Print the certificates, what they allow, and what is not certified."""
    tested = sum(group.certificate is not None and group.certificate.reviewed > 0 for group in found.groups)
    _say(
        console,
        f"run {found.run}: at least {found.precision:.4g} of {found.gate} labels correct, confidence "
        f"{found.confidence:.4g}; look {found.look}, tested at {found.delta:.4g} for {tested} "
        f"group{'s' if tested != 1 else ''}",
    )
    if found.simulated:
        _say(console, "simulated reviewer: a program answered from ground truth, so this certifies nothing")
    console.print(_groups(found))
    for group in found.groups:
        if group.certificate is not None and group.certificate.refusal:
            _say(console, f"{group.name}: not certified: {group.certificate.refusal}")
    if found.classes:
        _say(console, "by class, accepted labels, drawn towards their group; not certified:")
        console.print(_classes(found))
    reviewers = found.reviewers
    if reviewers.planted:
        _say(
            console,
            f"reviewers missed {reviewers.missed} of {reviewers.planted} known-wrong labels: at most "
            f"{reviewers.accepted:.3f} of those that may be accepted, {reviewers.routed:.3f} of the others",
        )
    for remark in found.remarks:
        _say(console, remark)
    if found.version is not None:
        share = found.accepted / found.labels if found.labels else 0.0
        _say(
            console,
            f"policy {found.version} accepts {found.accepted:,} of {found.labels:,} labels ({share:.1%}); "
            f"{found.kept_for_fitting:,} are on images kept for fitting and go to people",
        )
        _say(console, "put it in force: vouch apply CAMPAIGN")
    _say(console, f"workspace: {found.workspace}")


def refusal(found: Certified) -> str:
    """Say in one line that nothing could be certified, and what to do."""
    words = "nothing could be certified, so no policy was written"
    if found.more_reviews is None:
        return f"{words}; the reasons stand with each group"
    # At about 1.6 seconds a label, as plans reckon.
    minutes = max(1, round(found.more_reviews * 1.6 / 60 + 0.5))
    return f"{words}; about {found.more_reviews:,} more reviews may do: vouch plan-reviews CAMPAIGN --minutes {minutes}"


def precision_words(value: float | None, at_least: float) -> str:
    """`0.973 (≥0.951)`; a dash where nothing was seen."""
    return "-" if value is None else f"{value:.3f} (≥{at_least:.3f})"


def accepted_share(certificate: GroupCertificate) -> str:
    """Share of the labels that may be accepted which are."""
    return f"{certificate.accepted / certificate.labels:.1%}" if certificate.labels else "-"


def _groups(found: Certified) -> Table:
    names = ("n", "wrong", "at most", "allowed", "p ≥", "accepted", "precision A", "precision B")
    table = Table()
    table.add_column("group", overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    for group in found.groups:
        one = group.certificate
        if one is None:
            continue
        table.add_row(
            printable(group.name),
            f"{one.reviewed:,}",
            f"{one.errors:,}",
            f"{one.bound:.4f}",
            f"{one.limit:.4f}",
            "-" if group.p_correct is None else f"{group.p_correct:.4f}",
            accepted_share(one),
            precision_words(one.accepted_precision, one.accepted_at_least),
            precision_words(one.delivered_precision, one.delivered_at_least),
        )
    return table


def _classes(found: Certified) -> Table:
    table = Table()
    table.add_column("class", overflow="fold")
    for name in ("accepted", "reviewed", "wrong", "precision"):
        table.add_column(name, justify="right")
    for one in found.classes:
        shown = "-" if one.precision is None else f"{one.precision:.3f}"
        table.add_row(printable(one.name), f"{one.accepted:,}", f"{one.reviewed:,}", f"{one.errors:,}", shown)
    return table


def _say(console: Console, words: str) -> None:
    console.print(printable(words), highlight=False, markup=False, soft_wrap=True)
