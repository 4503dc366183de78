"""Formats figures for people, and holds results as lines and tables that terminal, Markdown and HTML all render."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

NONE: Final = "\u2013"
"""Stands where there is no figure."""

_MOST_KINDS: Final = 12
_NAMES: Final = {"p_correct": "p(correct)"}
_ACRONYMS: Final = {"clip": "CLIP", "sam": "SAM", "iou": "IoU"}


Columns = dict[str, Callable[[Any], str]]
"""Name -> the function that formats the column's values."""


class Table(NamedTuple):
    """Values in named columns; None is shown as NONE."""

    title: str
    columns: Columns
    rows: Sequence[Sequence[Any]]

    def cells(self) -> Iterator[list[str]]:
        """The rows as text."""
        for row in self.rows:
            pairs = zip(self.columns.values(), row, strict=True)
            yield [NONE if value is None else form(value) for form, value in pairs]


Block = str | Table
"""A line of text, or a table."""


class Result(Protocol):
    """What a command answers: fields for machines, blocks for people."""

    def blocks(self) -> Iterable[Block]:
        """Lines and tables, in the order to read them; CAMPAIGN in a command stands for the campaign file."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The fields."""


def facts(title: str, values: Mapping[str, str]) -> Table:
    """A table of names and values without a head."""
    return Table(title, {"": str, " ": str}, tuple(values.items()))


def count(value: int | None) -> str:
    """Thousands apart; a dash where there is no figure."""
    return NONE if value is None else f"{value:,}"


def plural(value: int, thing: str, things: str | None = None) -> str:
    """Say how many of a thing there are; `things` where several have no plain s, or a verb goes with them."""
    return f"{value:,} {thing if value == 1 else things or f'{thing}s'}"


def pct(share: float | None) -> str:
    """A share in percent; a dash where there is none. All but 100% is never written as 100%, nor more than 0 as 0%."""
    if share is None or math.isnan(share):
        return NONE
    text = f"{100 * share:.1f}".removesuffix(".0")
    if (text == "100" and share < 1) or (text == "0" and share > 0):
        if text == "0":
            return "<0.001%" if share < 1e-5 else f"{100 * share:.3g}%"
        return f"{math.floor(100_000 * share) / 1000:g}%"
    return f"{text}%"


def share(value: float | None) -> str:
    """A share in percent with its tenths, so that those of a column stand below each other."""
    text = pct(value)
    return text if value is None or "." in text or text in ("0%", "100%", NONE) else f"{text[:-1]}.0%"


def least(share: float) -> str:
    """A lower bound in percent, cut, so that it never reads as more."""
    return f"{math.floor(1000 * share + 1e-9) / 10:g}%"


def most(share: float) -> str:
    """An upper bound in percent, raised to the next tenth, so that it never reads as less."""
    return f"{math.ceil(1000 * share - 1e-9) / 10:g}%"


def estimate(found: tuple[float, float]) -> str:
    """An estimated share with its lower bound."""
    return f"{pct(found[0])} (≥{least(found[1])})"


def cut(value: float) -> str:
    """A threshold with three digits, cut, so that it never reads as stricter than it is."""
    return f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"


def score(value: float) -> str:
    """Average precision, or the mean of a signal, from 0 to 1."""
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """`42 s`, `12 min 3 s`, `5 h 7 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def mebibytes(size: int) -> str:
    """Bytes in MiB."""
    return f"{size / (1 << 20):,.0f} MiB"


def when(moment: str) -> str:
    """Date and time of an ISO 8601 string."""
    found = datetime.fromisoformat(moment)
    return f"{found.day} {found:%B %Y, %H:%M} UTC"


def day(moment: str) -> str:
    """Date of an ISO 8601 string."""
    found = datetime.fromisoformat(moment)
    return f"{found.day} {found:%B %Y}"


def some(names: Sequence[str], shown: int) -> str:
    """The first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def files_remarks(skipped: Mapping[str, int], misnamed: int) -> Iterator[str]:
    """What the source holds beside images, and images whose names claim another format."""
    if skipped:
        ordered = sorted(skipped.items(), key=lambda entry: (-entry[1], entry[0]))
        kinds = some([f"{kind} {files:,}" for kind, files in ordered], _MOST_KINDS)
        yield f"{plural(sum(skipped.values()), 'file')} skipped: {kinds}"
    if misnamed:
        yield f"{plural(misnamed, 'image')} taken by content: the name ends as another format's does"


def rule(text: str) -> str:
    """A rule or reason as stored, in a reader's words."""
    text = text.replace("p_correct", "p(correct)").replace("_", " ").replace(">=", "\u2265")
    for name, shown in (("clip ", "CLIP "), ("sam iou", "SAM IoU"), ("iou ", "IoU ")):
        text = text.replace(name, shown)
    return text


def signal_name(signal: str) -> str:
    """A signal's name for people."""
    parts = signal.replace("_", " ").split()
    return _NAMES.get(signal, " ".join(_ACRONYMS.get(part, part) for part in parts))


def policy_name(text: str) -> str:
    """A policy's version or basis for people: the version of the campaign's own thresholds is a fingerprint."""
    text = re.sub(r"\buser-[0-9a-f]{6,}", "the campaign's thresholds", text)
    return re.sub(r"\buser thresholds", "manual thresholds", text)


def policy_with_basis(version: str, basis: str) -> str:
    """A policy and why it may accept; that of the campaign's own thresholds has no name."""
    return policy_name(basis if version.startswith("user-") else f"{version} ({basis})")


def guarantee_text(precision: float, gate: str, confidence: float, missed: float = 0) -> str:
    """The precision that is asked for, in the campaign file's figures; missed is what reviewers are assumed to miss."""
    text = f"at least {precision:.4g} of {gate} labels correct, confidence {confidence:.4g}"
    return f"{text}, {assumption_text(missed)}" if missed else text


def assumption_text(missed: float) -> str:
    """What a guarantee assumes of the people who answered."""
    return f"if reviewers miss at most {pct(missed)} of the wrong labels"


def outside_text(labels: int) -> str:
    """How many labels wait because no sample of them was reviewed."""
    seem, verb = ("label seems", "is") if labels == 1 else ("labels seem", "are")
    return (
        f"{labels:,} more {seem} good enough and {verb} outside the certificate: a small sample of them may extend it: "
        "vouch plan-reviews CAMPAIGN"
    )


def coverage_text(labels: int, images: int, created: str, outside: int | None = None) -> str:
    """Which labels a guarantee covers, and how many wait outside."""
    text = f"it covers {plural(labels, 'label')} of {plural(images, 'image')}, as of {created[:10]}"
    if not outside:
        return text
    verb = "is" if outside == 1 else "are"
    return (
        f"{text}; {plural(outside, 'label')} {verb} outside and wait for a top-up sample: vouch plan-reviews CAMPAIGN"
    )
