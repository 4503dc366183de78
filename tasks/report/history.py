"""Keeps the figures of every report, so that the next one can say what changed: reports/<run>/<number>.json."""

import re
from typing import Final

from pydantic import ValidationError

from schemas.report import Report
from tasks.report.changes import compared
from tasks.store.store import Store

_RECORD: Final = re.compile(r"(\d{4,})\.json")


def earlier_reports(workspace: Store, run: str) -> list[Report]:
    """Read the last two reports of a run, the latest first; those of another version of Vouch are left out."""
    found: list[Report] = []
    for number in reversed(_numbers(workspace, run)):
        try:
            found.append(Report.model_validate_json(workspace.get(_key(run, number)).data))
        except ValidationError:
            continue
        if len(found) == 2:
            break
    return found


def numbered(report: Report, earlier: list[Report], last: int) -> tuple[Report, bool]:
    """Give a report its number and say what changed.

    A report that says the same as the last one keeps its number, and is held against the one before.

    Args:
        report: The new one.
        earlier: As `earlier_reports` gives them.
        last: Greatest number in use, 0 if none.

    Returns:
        The report, and whether it is to be kept.
    """
    same = bool(earlier) and not compared(earlier[0], report).changes
    number = earlier[0].number if same else last + 1
    before = next(iter(earlier[1:] if same else earlier), None)
    changes = {} if before is None else {"changes": compared(before, report)}
    return report.model_copy(update={"number": number, **changes}), not same


def keep_report(workspace: Store, report: Report) -> Report:
    """Keep a report's figures and say what changed; another's record is never replaced.

    Raises:
        StoreError: The workspace cannot be read or written.
    """
    run = report.run
    while True:
        numbers = _numbers(workspace, run)
        found, new = numbered(report, earlier_reports(workspace, run), max(numbers, default=0))
        data = found.model_dump_json(indent=1).encode() + b"\n"
        if not new or workspace.put(_key(run, found.number), data, if_absent=True):
            return found


def _numbers(workspace: Store, run: str) -> list[int]:
    folder = f"reports/{run}/"
    names = (_RECORD.fullmatch(info.key.removeprefix(folder)) for info in workspace.list(folder))
    return sorted(int(name[1]) for name in names if name)


def _key(run: str, number: int) -> str:
    return f"reports/{run}/{number:04d}.json"
