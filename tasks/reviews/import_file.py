"""Imports verdicts that other tools gathered: checks whole files, then adds what is new."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.reviews import IMAGE_VERDICTS, ImportOutcome
from tasks.arrow import first_rows
from tasks.labels.arrays import RunLabels, current_of, read_run_labels
from tasks.plan.ledger import Ledger
from tasks.reviews.check_file import CheckedFile, Refused, check_file
from tasks.reviews.check_row import RowChecker
from tasks.reviews.file_rows import COLUMNS
from tasks.reviews.image_sizes import image_sizes
from tasks.reviews.plans import read_plans
from tasks.reviews.verdicts import read_verdicts, write_verdicts
from tasks.store.open import open_store
from tasks.store.store import Store

NAMED_PROBLEMS: Final = 5
"""Refused rows that an error names."""


def import_files(
    campaign: Campaign, paths: Sequence[Path], reviewer: str, *, skip_bad: bool = False
) -> list[ImportOutcome]:
    """Add the verdicts of files to a campaign's workspace; all of them or, if a row is no verdict, none.

    A row without a time counts as said when its file was last changed, so the same file again adds nothing.

    Args:
        campaign: Whose labels are judged.
        paths: CSV, Parquet, JSON or JSON lines; see tasks.reviews.file_rows.
        reviewer: Who answered where a row does not say.
        skip_bad: Import the other rows, and write those that are no verdicts to <file>-refused.csv, with reasons.

    Returns:
        What became of the rows of each file.

    Raises:
        UserError: The campaign has no labels yet, a file cannot be read, or rows are no verdicts: names the first.
        StoreError: The workspace cannot be read or written.
    """
    if not reviewer.strip():
        raise UserError("a verdict needs a reviewer; give --reviewer a name")
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
        now = datetime.now(UTC)
        sizes = partial(image_sizes, workspace, run, ledger, current.fingerprint)
        checked = [
            check_file(
                path, RowChecker(current.classes, reviewer.strip(), min(_changed(path), now), now), labels, sizes
            )
            for path in paths
        ]
    if not skip_bad:
        _refuse([file for file in checked if file.refused])
    known = read_verdicts(workspace)
    asked = [tasks["label_id"].drop_null() for _, tasks in read_plans(workspace, run)]
    ids = pa.chunked_array([labels.label_ids, *(chunk for column in asked for chunk in column.chunks)], pa.string())
    outcomes = []
    for file in checked:
        outcomes.append(_add(workspace, file, known, ids, labels))
        known = pa.concat_tables([known, file.verdicts])
    return outcomes


def _add(
    workspace: Store, file: CheckedFile, known: pa.Table, ids: pa.ChunkedArray, labels: RunLabels
) -> ImportOutcome:
    """Add what a file says that is not known.

    Args:
        workspace: The workspace.
        file: The file.
        known: Verdicts that are there.
        ids: All that may be judged: labels of the run and tasks, plants included.
        labels: Labels of the run.
    """
    rows = first_rows(pa.concat_tables([known, file.verdicts]), file.verdicts.column_names) - known.num_rows
    rows = rows[rows >= 0]
    refused_file = _write_refused(file) if file.refused else None
    write_verdicts(workspace, file.verdicts.take(pa.array(rows, pa.int64())))
    about_image = pc.is_in(file.verdicts["verdict"], value_set=pa.array(IMAGE_VERDICTS))
    return ImportOutcome(
        file=str(file.path),
        rows=file.rows,
        imported=len(rows),
        known=file.verdicts.num_rows - len(rows),
        unanswered=file.unanswered,
        refused=len(file.refused),
        refused_file=refused_file,
        unknown_labels=_unknown(file.verdicts.filter(pc.invert(about_image))["label_id"], ids),
        unknown_images=_unknown(file.verdicts.filter(about_image)["key"], labels.keys),
    )


def _unknown(column: pa.ChunkedArray, known: pa.Array) -> int:
    return int(np.count_nonzero(~pc.is_in(column, value_set=known).to_numpy()))


def _changed(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _refuse(files: Sequence[CheckedFile]) -> None:
    if not files:
        return
    lines = [f"nothing was imported: {len(file.refused):,} of {file.rows:,} rows of {file.path} are no verdicts"
             for file in files]  # fmt: skip
    lines[-1] += "; mend them, or leave them out by --skip-bad"
    for file in files:
        lines += [f"{file.path}: row {one.number}: {one.reason}" for one in file.refused[:NAMED_PROBLEMS]]
        if len(file.refused) > NAMED_PROBLEMS:
            lines.append(f"{file.path}: and {len(file.refused) - NAMED_PROBLEMS:,} rows more")
    raise UserError("\n".join(lines))


def _write_refused(file: CheckedFile) -> str:
    path = file.path.with_name(f"{file.path.stem}-refused.csv")
    try:
        with path.open("w", encoding="utf-8", errors="replace", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(("row", "reason", *COLUMNS))
            rows.writerows(_cells(one) for one in file.refused)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return str(path)


def _cells(one: Refused) -> list[object]:
    return [one.number, one.reason, *(_cell(one.row.get(name)) for name in COLUMNS)]


def _cell(value: object) -> object:
    # Masks are ASCII; bytes that are none must stay legible all the same.
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
