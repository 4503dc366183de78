"""Checks a whole verdict file: each row by itself, rows against each other and against the labels that they judge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.reviews import IMAGE_VERDICTS, VERDICTS
from schemas.tables import BOX
from tasks.columns import numbers
from tasks.contract.run_labels import RunLabels
from tasks.reviews.check_row import RowChecker, RowError
from tasks.reviews.distinct import row_codes
from tasks.reviews.file_rows import read_rows

_BATCH_ROWS: Final = 16_384
_WITHOUT_CORRECTION: Final = ("correct", "not_an_object")


class Refused(NamedTuple):
    """A row that is no verdict."""

    number: int
    """Of the row, for people."""
    reason: str
    """Why, in words."""
    row: Mapping[str, Any]
    """Its columns."""


class CheckedFile(NamedTuple):
    """What a verdict file holds."""

    path: Path
    """The file."""
    rows: int
    """All rows."""
    unanswered: int
    """Of them, those without a verdict."""
    refused: list[Refused]
    """Of them, those that are no verdicts, in their order."""
    verdicts: pa.Table
    """The others, as rows of schemas.reviews.VERDICTS."""


def check_file(path: Path, checker: RowChecker, labels: RunLabels) -> CheckedFile:
    """Read and check a verdict file.

    Args:
        path: The file.
        checker: Checks single rows.
        labels: The labels of the run; verdicts on others are taken at their word.

    Raises:
        UserError: The file cannot be read, or is not made of rows and known columns.
    """
    refused: list[Refused] = []
    pending: list[dict[str, Any]] = []
    tables, places, rows, unanswered = [VERDICTS.empty_table()], [], 0, 0
    for number, row in read_rows(path):
        rows += 1
        try:
            found = checker.check(row)
        except RowError as error:
            refused.append(Refused(number, str(error), row))
            continue
        if found is None:
            unanswered += 1
            continue
        pending.append(found)
        places.append(number)
        if len(pending) == _BATCH_ROWS:
            tables.append(pa.Table.from_pylist(pending, schema=VERDICTS))
            pending.clear()
    tables.append(pa.Table.from_pylist(pending, schema=VERDICTS))
    table = pa.concat_tables(tables).combine_chunks()
    own = _own_class(table, labels)
    late = _contradictions(table, np.array(places, np.int64)) | _against_labels(table, own)
    refused += [Refused(places[at], reason, table.slice(at, 1).to_pylist()[0]) for at, reason in late.items()]
    fine = np.ones(len(places), np.bool_)
    fine[list(late)] = False
    verdicts = _without_idle_corrections(table.filter(pa.array(fine)))
    return CheckedFile(path, rows, unanswered, sorted(refused, key=lambda one: one.number), verdicts)


def _contradictions(table: pa.Table, places: NDArray[np.int64]) -> dict[int, str]:
    """Rows by which one reviewer says two things of one label at one time: which of them is later, nobody knows."""
    about_label = ~_among(table, IMAGE_VERDICTS)
    what = row_codes(table, ["label_id", "reviewer", "reviewed_at"])
    said = row_codes(table, ["label_id", "reviewer", "reviewed_at", "verdict", "class_name", *BOX])
    first = np.unique(what, return_index=True)[1]
    before = first[what] if len(what) else what
    wrong = np.flatnonzero(about_label & (said != said[before]))
    return {
        int(at): f"says otherwise than row {places[before[at]]} of the same label, reviewer and time" for at in wrong
    }


def _against_labels(table: pa.Table, own: pa.Array) -> dict[int, str]:
    """Rows whose class does not go with their verdict, given the class of the label."""
    same = pc.equal(table["class_name"], own)
    no_correction = _true(pc.and_(pc.equal(table["verdict"], "wrong_class"), same))
    other_class = _true(pc.and_(pc.equal(table["verdict"], "correct"), pc.invert(same)))
    names = own.to_pylist() if no_correction.any() or other_class.any() else []
    found = {int(at): f"wrong_class, but the label is {names[at]!r} already" for at in np.flatnonzero(no_correction)}
    return found | {
        int(at): f"correct, but with another class than the label's, {names[at]!r}; that is wrong_class"
        for at in np.flatnonzero(other_class)
    }


def _own_class(table: pa.Table, labels: RunLabels) -> pa.Array:
    """The class of each row's label; null where the run does not have it."""
    place = pc.index_in(table["label_id"], value_set=labels.label_ids).combine_chunks()
    known = pa.array(labels.class_index, pa.int64()).take(place)
    return pa.array(labels.class_names, pa.string()).take(known)


def _without_idle_corrections(table: pa.Table) -> pa.Table:
    """Drop class and box where the verdict leaves nothing to correct: many tools repeat those of the label."""
    idle = pa.array(_among(table, _WITHOUT_CORRECTION))
    for name in ("class_name", *BOX):
        field = VERDICTS.field(name)
        column = pc.if_else(idle, pa.scalar(None, field.type), table[name])
        table = table.set_column(VERDICTS.get_field_index(name), field, column)
    return table


def _among(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.bool_]:
    return numbers(pc.is_in(table["verdict"], value_set=pa.array(names, pa.string())), np.bool_)


def _true(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return numbers(column.fill_null(False), np.bool_)
