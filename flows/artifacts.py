"""Renders a run's summary and its certificates as the Markdown of Prefect artifacts."""

from collections.abc import Iterable

from vouch_labels.flows.console.certify import GROUP_HEAD, group_rows, not_sampled_words
from vouch_labels.schemas.policy import Certified
from vouch_labels.schemas.queue import AppliedReviews
from vouch_labels.schemas.records import RunSummary


def summary_markdown(summary: RunSummary) -> str:
    """Lay a summary out as Markdown tables: images, labels by class, reasons of failures."""
    figures = {
        "images": summary.images,
        "done": summary.done,
        "failed": summary.failed,
        "pending": summary.pending,
        "new or changed": summary.new_images,
        "removed": summary.removed_images,
        "labels": summary.labels,
        "accepted": summary.accepted,
        "review": summary.review,
        "shards processed": summary.shards_processed,
        "seconds": summary.seconds,
        "policy": summary.policy,
        "accepted by": summary.policy_basis,
        **({"policy expired": summary.policy_expired} if summary.policy_expired else {}),
    }
    parts = [f"# Run {_plain(summary.run)}", _table(("", ""), [(name, str(value)) for name, value in figures.items()])]
    classes = [(name, str(c.accepted), str(c.review)) for name, c in summary.classes.items()]
    parts.append(_table(("class", "accepted", "review"), classes))
    if summary.reasons:
        reasons = [(reason, str(images)) for reason, images in summary.reasons.items()]
        parts.append(_table(("why images failed", "images"), reasons[:50]))
    if summary.shard_errors:
        parts.append(_table(("shard", "why it could not be finished"), list(summary.shard_errors.items())[:50]))
    if summary.export is not None:
        parts.append(f"Data set: `{summary.export.annotations_file}`")
    return "\n\n".join(parts)


def certified_markdown(found: Certified) -> str:
    """Lay certificates out as Markdown: the promise, a table of groups, why others are not certified."""
    words = "not certified" if found.version is None else f"policy {_plain(found.version)}"
    parts = [f"# Certification of run {_plain(found.run)}: {words}"]
    if found.simulated:
        parts.append("**Simulated reviewer: a program answered from ground truth, so this certifies nothing.**")
    parts.append(
        f"Asked for: at least {found.precision:.4g} of {found.gate} labels correct, confidence {found.confidence:.4g}. "
        f"Look {found.look}. Accepted: {found.accepted} of {found.labels} labels."
    )
    if rows := group_rows(found):
        parts.append(_table(GROUP_HEAD, rows))
    refused = [(group.name, group.certificate.refusal) for group in found.groups if group.certificate is not None]
    if any(why for _, why in refused):
        parts.append(_table(("group", "why it is not certified"), [row for row in refused if row[1]]))
    parts += [_plain(words) for words in (not_sampled_words(found), *found.remarks) if words]
    return "\n\n".join(parts)


def applied_reviews_markdown(found: AppliedReviews) -> str:
    """Lay out what people's answers changed: verdicts, the certificates, decisions."""
    parts = ["# People's answers"]
    if found.pulled is not None:
        parts.append(f"{found.pulled.verdicts} new verdicts of {found.pulled.answers} answers are in the workspace.")
    if found.applied is not None:
        parts.append(
            f"{found.applied.changed} of {found.applied.labels} labels are decided otherwise, by policy "
            f"{_plain(found.applied.policy)}; {found.applied.accepted} are accepted now."
        )
    parts += [_plain(words) for words in found.words]
    if found.certified is not None:
        parts.append(certified_markdown(found.certified))
    return "\n\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Keys and class names come from outside: they must not break the table or bring markup in."""
    return "".join(f"\\{letter}" if letter in "|`<>[]*_\\" else letter for letter in text)
