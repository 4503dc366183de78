"""Says in words how two reports differ."""

from collections.abc import Callable, Iterator
from typing import Final

from schemas.report import Change, Changes, Interval, Report

STANDINGS: Final = {
    "empty": "no labels",
    "nothing_accepted": "nothing accepted",
    "user_thresholds": "user thresholds, not certified",
    "certified": "certified",
    "simulated": "simulated reviewer, not certified",
    "expired": "expired",
}
_COUNTS: Final[dict[str, Callable[[Report], int]]] = {
    "images labelled": lambda report: report.images.done,
    "images failed": lambda report: report.images.failed,
    "labels": lambda report: report.automation.labels,
    "labels accepted": lambda report: report.automation.accepted,
    "labels with a verdict": lambda report: report.verdicts.labels,
    "images searched": lambda report: report.verdicts.images,
}
_SHARES: Final[dict[str, Callable[[Report], float | None]]] = {
    "automation": lambda report: report.automation.share,
    "automation of the certified images": lambda report: report.certify_side.share if report.certify_side else None,
    "audited precision": lambda report: _value(next((one.precision for one in report.audits if one.precision), None)),
    "recall": lambda report: _value(report.recall.delivered),
    "true precision of accepted labels": lambda report: report.truth.accepted.precision if report.truth else None,
}
_WORDS: Final[dict[str, Callable[[Report], str]]] = {
    "policy": lambda report: report.policy.version,
    "standing": lambda report: STANDINGS[report.policy.standing],
    "precision asked for": lambda report: f"{100 * report.policy.precision:.4g}%",
    "confidence asked for": lambda report: f"{100 * report.policy.confidence:.4g}%",
}


def compared(before: Report, now: Report) -> Changes:
    """List the figures of two reports of a run that differ."""
    return Changes(since=before.created, number=before.number, changes=tuple(_changes(before, now)))


def _changes(before: Report, now: Report) -> Iterator[Change]:
    for name, word in _WORDS.items():
        if word(before) != word(now):
            yield Change(name=name, before=word(before), now=word(now), direction="other")
    for name, count in _COUNTS.items():
        step = count(now) - count(before)
        if step:
            words = f"{abs(step):,} {'more' if step > 0 else 'fewer'}"
            yield _moved(name, f"{count(before):,}", f"{count(now):,}", step, words)
    for name, share in _SHARES.items():
        first, second = share(before), share(now)
        if _percent(first) == _percent(second):
            continue
        if first is None or second is None:
            yield Change(name=name, before=_percent(first), now=_percent(second), direction="other")
            continue
        points = 100 * (second - first)
        yield _moved(name, _percent(first), _percent(second), points, f"{abs(points):.1f} points")


def _moved(name: str, before: str, now: str, step: float, words: str) -> Change:
    return Change(name=name, before=before, now=now, direction="up" if step > 0 else "down", words=words)


def _value(found: Interval | None) -> float | None:
    return found.value if found else None


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}%"
