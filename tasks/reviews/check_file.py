"""Checks a whole verdict file: each row by itself, rows against each other and against the labels that they judge."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.reviews import IMAGE_VERDICTS, VERDICTS
from schemas.tables import BOX
from tasks.arrow import numbers, row_codes
from tasks.labels.arrays import RunLabels
from tasks.reviews.check_row import RowChecker, RowError
from tasks.reviews.file_rows import read_rows
from tasks.reviews.masks import mask_trouble

_BATCH_ROWS: Final = 16_384
_WITHOUT_CORRECTION: Final = ("correct", "not_an_object")
_WITHOUT_MASK: Final = ("not_an_object",)

Sizes = Callable[[Collection[str]], Mapping[str, tuple[int, int]]]
"""Gives the width and height of images by their keys, of those that it knows."""


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


def check_file(path: Path, checker: RowChecker, labels: RunLabels, sizes: Sizes) -> CheckedFile:
    """Read and check a verdict file.

    Args:
        path: The file.
        checker: Checks single rows.
        labels: The labels of the run; verdicts on others are taken at their word.
        sizes: Of the run's images, which masks must have; asked only if there are masks.

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
    place = pc.index_in(table["label_id"], value_set=labels.label_ids).combine_chunks()
    late = _contradictions(table, np.array(places, np.int64))
    late |= _against_labels(table, _own_class(place, labels)) | _against_images(table, place, labels, sizes)
    refused += [Refused(places[at], reason, table.slice(at, 1).to_pylist()[0]) for at, reason in late.items()]
    fine = np.ones(len(places), np.bool_)
    fine[list(late)] = False
    verdicts = _without_idle_corrections(table.filter(pa.array(fine)))
    return CheckedFile(path, rows, unanswered, sorted(refused, key=lambda one: one.number), verdicts)


def _contradictions(table: pa.Table, places: NDArray[np.int64]) -> dict[int, str]:
    """Rows by which one reviewer says two things of one label at one time: which of them is later, nobody knows."""
    about_label = ~_among(table, IMAGE_VERDICTS)
    what = row_codes(table, ["label_id", "reviewer", "reviewed_at"])
    said = row_codes(table, ["label_id", "reviewer", "reviewed_at", "verdict", "class_name", *BOX, "rle_counts"])
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


def _against_images(table: pa.Table, place: pa.Array, labels: RunLabels, sizes: Sizes) -> dict[int, str]:
    """Rows whose mask has not the size of the image."""
    rows = np.flatnonzero(numbers(table["rle_counts"].is_valid(), np.bool_) & ~_among(table, _WITHOUT_MASK))
    at = pa.array(rows, pa.int64())
    image = pa.array(labels.image_index, pa.int64()).take(place.take(at))
    keys = pc.coalesce(labels.keys.take(image), table["key"].combine_chunks().take(at)).to_pylist()
    size_of = sizes({key for key in keys if key is not None})
    found = {}
    for row, key in zip(rows.tolist(), keys, strict=True):
        width, height = size_of.get(key, (None, None))
        if problem := mask_trouble(table["rle_counts"][row].as_py(), height, width):
            found[row] = f"rle_counts: {problem}"
    return found


def _own_class(place: pa.Array, labels: RunLabels) -> pa.Array:
    """The class of each row's label, given its place; null where the run does not have it."""
    known = pa.array(labels.class_index, pa.int64()).take(place)
    return pa.array(labels.class_names, pa.string()).take(known)


def _without_idle_corrections(table: pa.Table) -> pa.Table:
    """Drop class, box and mask where the verdict leaves nothing to correct: many tools repeat those of the label."""
    for name in ("class_name", *BOX, "rle_counts"):
        field = VERDICTS.field(name)
        idle = pa.array(_among(table, _WITHOUT_MASK if name == "rle_counts" else _WITHOUT_CORRECTION))
        column = pc.if_else(idle, pa.scalar(None, field.type), table[name])
        table = table.set_column(VERDICTS.get_field_index(name), field, column)
    return table


def _among(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.bool_]:
    return numbers(pc.is_in(table["verdict"], value_set=pa.array(names, pa.string())), np.bool_)


def _true(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return numbers(column.fill_null(False), np.bool_)
