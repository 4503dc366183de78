"""Imports verdicts that other tools collected: checks whole files, then adds what is new.

Each row is checked by itself, against the other rows and against the labels that it is about.
"""

import csv
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import IMAGE_VERDICTS, LABEL_VERDICTS, VERDICTS, ImportOutcome
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import first_places, first_rows, numbers
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.labels.read import image_sizes
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.read_file import COLUMNS, VERDICT_KINDS, read_rows
from vouch_labels.tasks.reviews.verdicts import mask_trouble, read_verdicts, write_verdicts
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

NAMED_PROBLEMS: Final = 5
"""Refused rows that an error names."""

_BATCH_ROWS: Final = 16_384
_WITHOUT_CORRECTION: Final = ("correct", "not_an_object")
_WITHOUT_MASK: Final = ("not_an_object",)

Sizes = Callable[[Collection[str]], Mapping[str, tuple[int, int]]]
"""Gives the width and height of images by their keys, of those that it knows."""

_LARGEST: Final = 1e9
"""Pixels and seconds beyond it are no measurements, and float32 holds no whole numbers there."""
_FIRST_YEAR: Final = 1970
_CLOCKS_DIFFER: Final = timedelta(days=1)
_SWITCH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SHOWN: Final = 60


def import_files(
    campaign: Campaign, paths: Sequence[Path], reviewer: str, *, skip_bad: bool = False
) -> list[ImportOutcome]:
    """Add the verdicts of files to a campaign's workspace; all of them or, if a row is invalid, none.

    A row without a time counts as given when its file was last changed, so the same file again adds nothing; one
    without a reviewer is by `reviewer`. skip_bad imports the valid rows, and writes the others to <file>-refused.csv,
    with reasons.

    Raises:
        UserError: The campaign has no labels yet, a file cannot be read, or rows are invalid: names the first.
        StoreError: The workspace cannot be read or written.
    """
    if not reviewer.strip():
        raise UserError("a verdict needs a reviewer; give --reviewer a name")
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
        now = datetime.now(UTC)
        sizes = partial(image_sizes, workspace, run, ledger, current.fingerprint)
        checked = [
            check_file(
                path,
                RowChecker(current.classes, reviewer.strip(), min(_changed(path), now), now, current.names),
                labels,
                sizes,
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


class Refused(NamedTuple):
    """A row that is no verdict."""

    number: int
    """Of the row, for people."""
    reason: str
    row: Mapping[str, Any]
    """Its columns."""


class CheckedFile(NamedTuple):
    """What a verdict file holds."""

    path: Path
    rows: int
    unanswered: int
    """Rows without a verdict."""
    refused: list[Refused]
    """Rows that are no verdicts, in their order."""
    verdicts: pa.Table
    """The others, as rows of schemas.reviews.VERDICTS."""


def _add(
    workspace: Store, file: CheckedFile, known: pa.Table, ids: pa.ChunkedArray, labels: RunLabels
) -> ImportOutcome:
    """Add the verdicts of a file that are not known; ids are all that may be judged, honeypots included."""
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
    lines = [f"nothing was imported: {len(file.refused):,} of {file.rows:,} rows of {file.path} are invalid"
             for file in files]  # fmt: skip
    lines[-1] += ": fix them, or leave them out by --skip-bad"
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
            for one in file.refused:
                rows.writerow((one.number, one.reason, *(_cell(one.row.get(name)) for name in COLUMNS)))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return str(path)


def _cell(value: object) -> object:
    # Masks are ASCII; bytes that are none must stay legible all the same.
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


@dataclass(frozen=True)
class RowChecker:
    """What rows are held against, and what stands in for what they leave empty."""

    class_names: Sequence[str]
    """Of the campaign."""
    reviewer: str
    """Where a row names none."""
    reviewed_at: datetime
    """Where a row gives no time, with a time zone."""
    now: datetime
    """With a time zone; later verdicts than this cannot be."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name that labels carry -> present name, of renamed classes; files may have either."""
    _folded: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the look-up of classes, whose names differ by more than case."""
        self._folded.update({name.casefold(): name for name in self.class_names})
        self._folded.update({shown.casefold(): name for name, shown in self.names.items()})

    def check(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Turn a row into a row of schemas.reviews.VERDICTS; None if it has no verdict.

        Raises:
            RowError: It is no verdict.
        """
        verdict = _verdict(row.get("verdict"))
        if verdict is None:
            return None
        found = {
            "label_id": _text("label_id", row.get("label_id")),
            "key": _text("key", row.get("key")),
            "verdict": verdict,
            "class_name": self._class(row.get("class_name")),
            **dict(zip(BOX, _box([row.get(side) for side in BOX]), strict=True)),
            "reviewer": _text("reviewer", row.get("reviewer")) or self.reviewer,
            "seconds": _number("seconds", row.get("seconds")),
            "reviewed_at": self._time(row.get("reviewed_at")),
            "simulated": _switch(row.get("simulated")),
            "rle_counts": _mask(row.get("rle_counts")),
        }
        _check_whole(found)
        return found

    def _class(self, value: object) -> str | None:
        name = _text("class_name", value)
        if name is None or name.casefold() in self._folded:
            return name and self._folded[name.casefold()]
        near = difflib.get_close_matches(name.casefold(), self._folded, n=1, cutoff=0.6)
        hint = f"did you mean {self._shown(near[0])!r}?" if near else "name one of them"
        raise RowError(f"{_quoted(name)} is no class of the campaign; {hint}")

    def _shown(self, folded: str) -> str:
        name = self._folded[folded]
        return self.names.get(name, name)

    def _time(self, value: object) -> datetime:
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return self.reviewed_at
        time = value
        if isinstance(value, str):
            with suppress(ValueError):
                time = datetime.fromisoformat(value.strip())
        if not isinstance(time, datetime) or time.year < _FIRST_YEAR:
            raise RowError(f"reviewed_at: {_quoted(value)} is no time; write it as 2026-03-04T05:06:07Z")
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        if time > self.now + _CLOCKS_DIFFER:
            raise RowError(f"reviewed_at: {time.isoformat()} is yet to come; it would outdo every later verdict")
        return time


def check_file(path: Path, checker: RowChecker, labels: RunLabels, sizes: Sizes) -> CheckedFile:
    """Read and check a verdict file; verdicts on labels of other runs are trusted.

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
    """Rows by which one reviewer gives two verdicts on one label at one time: which of them is later is unknown."""
    about_label = ~_among(table, IMAGE_VERDICTS)
    names = ["label_id", "reviewer", "reviewed_at"]
    before = first_places(table, names)
    content = first_places(table, [*names, "verdict", "class_name", *BOX, "rle_counts"])
    wrong = np.flatnonzero(about_label & (content != content[before]))
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


class RowError(Exception):
    """Why a row is no verdict."""


def _check_whole(row: Mapping[str, Any]) -> None:
    verdict, has_box = row["verdict"], row["x0"] is not None
    if verdict in LABEL_VERDICTS and row["label_id"] is None:
        raise RowError(f"{verdict} needs a label_id")
    if verdict in IMAGE_VERDICTS and row["label_id"] is not None:
        raise RowError(f"{verdict} is about an image: leave label_id empty, and give the image's key")
    if verdict in IMAGE_VERDICTS and row["key"] is None:
        raise RowError(f"{verdict} needs the image's key")
    if verdict == "missed" and (not has_box or row["class_name"] is None):
        raise RowError("missed needs the object's class_name and its box x0, y0, x1, y1")
    if verdict == "checked" and has_box:
        raise RowError("checked has no box; an object that no label shows is missed")
    if row["rle_counts"] is not None:
        _check_mask(row)
    if row["seconds"] is not None and row["seconds"] < 0:
        raise RowError(f"seconds: {row['seconds']:g} is less than 0")


def _check_mask(row: Mapping[str, Any]) -> None:
    verdict = row["verdict"]
    if verdict == "checked":
        raise RowError("checked has no mask; an object that no label shows is missed")
    if verdict == "wrong_class" and row["class_name"] is None:
        raise RowError("wrong_class with a mask needs the right class_name as well")
    if verdict == "bad_box" and row["x0"] is None:
        raise RowError("bad_box with a mask needs the right box x0, y0, x1, y1 as well; correct keeps the box that is")
    if verdict != "not_an_object" and (problem := mask_trouble(row["rle_counts"])):
        raise RowError(f"rle_counts: {problem}")


def _verdict(value: object) -> str | None:
    given = _text("verdict", value)
    if given is None:
        return None
    name = re.sub(r"[\s_-]+", "_", given.casefold())
    if name in VERDICT_KINDS:
        return name
    near = difflib.get_close_matches(name, VERDICT_KINDS, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"use {', '.join(VERDICT_KINDS)}"
    raise RowError(f"{_quoted(given)} is no verdict; {hint}")


def _box(values: list[object]) -> list[float | None]:
    sides = [_number(name, value) for name, value in zip(BOX, values, strict=True)]
    if all(side is None for side in sides):
        return sides
    if any(side is None for side in sides):
        missing = ", ".join(name for name, side in zip(BOX, sides, strict=True) if side is None)
        raise RowError(f"the box lacks {missing}")
    # As they will be kept: sides that differ by less than float32 can say enclose nothing.
    x0, y0, x1, y1 = np.array(sides, np.float32)
    if not (x0 < x1 and y0 < y1):
        raise RowError(f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} is empty or inside out; x0 < x1 and y0 < y1")
    return sides


def _number(name: str, value: object) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    # A boolean is an integer to Python alone.
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise RowError(f"{name}: {_quoted(value)} is no number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise RowError(f"{name}: {_quoted(value)} is no number") from None
    if math.isnan(number) and isinstance(value, float):
        return None  # as data frames spell what is missing
    if not abs(number) <= _LARGEST:
        raise RowError(f"{name}: {_quoted(value)} is no number up to {_LARGEST:.0e}")
    return number


def _mask(value: object) -> bytes | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | bytes):
        raise RowError(f"rle_counts: {_quoted(value)} is no text; write the counts of a compressed COCO RLE")
    try:
        return (value.encode("ascii") if isinstance(value, str) else value).strip() or None
    except UnicodeEncodeError:
        raise RowError("rle_counts: the mask is no compressed COCO RLE, which is ASCII") from None


def _text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"{name}: {_quoted(value)} is no text")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can spell
        raise RowError(f"{name}: {_quoted(text)} is not valid Unicode") from None
    return text or None


def _switch(value: object) -> bool:
    known = _SWITCH.get(str(value).strip().casefold(), value if value not in (None, "") else False)
    if not isinstance(known, bool):
        raise RowError(f"simulated: {_quoted(value)} is neither true nor false")
    return known


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
