"""A run's summary as the Markdown of a Prefect artifact."""

from collections.abc import Iterable

from schemas.summary import RunSummary


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
        "shards worked off": summary.shards_processed,
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


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Keys and class names come from outside: they must not break the table or bring markup in."""
    return "".join(f"\\{letter}" if letter in "|`<>[]*_\\" else letter for letter in text)
