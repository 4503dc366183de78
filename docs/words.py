"""Checks that the code and the pages use the standard terms of the field: `make lint` runs it.

A word of our own is listed below with the term for it; a use of it fails with its file and line.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]


class Word(NamedTuple):
    """A word that is not used, as a regular expression without regard to case, and the standard term for it."""

    pattern: str
    term: str
    stored: str = ""
    """What may stand all the same: a regular expression of names that workspaces or other programs hold."""


WORDS: Final = (
    Word(r"\bwork(s|ed|ing)?(\s+\w+)?\s+off\b|\bwork_off|\bWorked\b(?=\()", "processed"),
    Word(r"\bhouse_?task|\bhouse decorator", "vouch_task"),
    Word(r"\bleash", "parent-death signal"),
    Word(r"\brooms\b", "packages"),
    Word(r"\bhandfuls?\b", "batch"),
    Word(r"\blanes?\b", "pipeline stages"),
    Word(r"\btakes? up answers|\btook up answers", "apply reviews"),
    Word(r"\bhand_out\b", "export tasks"),
    Word(r"\bdesks?\b|\bdesk_|\bseats?\b", "review session"),
    Word(r"\bHumanWord|\bhuman_word", "human label"),
    Word(
        r"promis(es?|ed)\b",
        "guarantee",
        stored=r"\bPromise\b|\.promise\b|[\"\(]promise\"|(A|a) promise (of|with)|against the promise",
    ),
    Word(r"\b(take|takes|took|taking) a look\b|\bread_looks\b|_of_look\b|\blook_by", "test"),
    Word(r"\bladders?\b", "threshold grid"),
    Word(
        r"\bplants?\b|\bplanted_", "honeypots", stored=r"[\"']plant(\\0|[\"'])|potted plants?|plants? pot|houseplants?"
    ),
    Word(r"\bin force\b|\bin_force_", "active policy"),
    Word(r"\bwish(es)?\b", "request"),
    Word(r"\bfates?\b|\bfate_of\b", "export status"),
    Word(r"\bspoken\b", "format"),
    Word(r"\bhopeless\b", "cannot certify"),
    Word(r"\bresting\b", "idle"),
    Word(r"\banew\b|_anew\b", "again"),
    Word(r"\bmend(s|ed|ing)?\b", "fix"),
    Word(r"\bbegun\b", "started"),
    Word(r"\breckon(s|ed|ing)?\b", "compute"),
)

_SUFFIXES: Final = (".py", ".md", ".sh", ".js", ".mjs", ".ts", ".j2", ".yaml", ".toml", ".css")
_OTHERS: Final = {"node_modules", "site", "demo", "fixtures"}
"""Folders that hold nothing of ours, or, as vouch_labels does, links to what is looked at already."""


def find_words(text: str, words: tuple[Word, ...] = WORDS) -> Iterator[tuple[int, str, str]]:
    """Yield (line, what stands there, the standard term), in the order of the words."""
    for pattern, term, stored in words:
        allowed = [found.span() for found in re.finditer(stored, text)] if stored else []
        for found in re.finditer(pattern, text, re.IGNORECASE):
            if not any(start <= found.start() and found.end() <= end for start, end in allowed):
                yield text.count("\n", 0, found.start()) + 1, " ".join(found.group().split()), term


def main() -> int:
    """Look through the checkout; 1 if a word stands anywhere."""
    count = 0
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if name not in _OTHERS and not name.startswith("."))
        for path in sorted(Path(folder, name) for name in names if name.endswith(_SUFFIXES)):
            if path in (Path(__file__), ROOT / "tests/docs/test_docs.py"):
                continue
            for line, word, term in find_words(path.read_text(encoding="utf-8")):
                print(f'{path.relative_to(ROOT)}:{line}: "{word}": the standard term is "{term}"')
                count += 1
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main())
