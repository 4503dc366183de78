"""Imports verdicts that other tools collected: checks whole files, then adds what is new.

Each row is checked by itself, against the other rows and against the labels that it is about. A file goes by in
batches; what is kept of a row until the end is some 20 bytes of memory, and its content in a temporary file.
"""

import csv
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import IMAGE_VERDICTS, VERDICTS, ImportOutcome
from vouch_labels.schemas.tables import BOX
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.arrow import boxes_of, first_rows, flat, numbers, row_hashes
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.labels.read import image_sizes
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.column_checks import check_columns
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.read_file import COLUMNS, Batch, OnRows, read_batches
from vouch_labels.tasks.reviews.row_checks import RowChecker, RowError
from vouch_labels.tasks.reviews.verdicts import mask_trouble, verdict_tables, write_verdicts
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

NAMED_PROBLEMS: Final = 5
"""Refused rows that an error names."""
MOST_REFUSED: Final = 100_000
"""Refused rows that are kept to be written; a file with more of them is another file."""

_CHUNK_ROWS: Final = 250_000
"""Of one file in the workspace, and in memory at a time."""
_IN_MEMORY: Final = 1 << 26
"""Bytes of a file's verdicts that need no temporary file."""
_WITHOUT_CORRECTION: Final = ("correct", "not_an_object")
_WITHOUT_MASK: Final = ("not_an_object",)
_IDENTITY: Final = ("label_id", "reviewer", "reviewed_at")
_CONTENT: Final = (*_IDENTITY, "verdict", "class_name", *BOX, "rle_counts")

Sizes = Callable[[Collection[str]], Mapping[str, tuple[int, int]]]
"""Gives the width and height of images by their keys, of those that it knows."""


def import_files(
    campaign: Campaign,
    paths: Sequence[Path],
    reviewer: str,
    *,
    skip_bad: bool = False,
    progress: OnRows | None = None,
) -> list[ImportOutcome]:
    """Add the verdicts of files to a campaign's workspace; all of them or, if a row is invalid, none.

    A row without a time counts as given when its file was last changed, so the same file again adds nothing; one
    without a reviewer is by `reviewer`. skip_bad imports the valid rows, and writes the others to <file>-refused.csv,
    with reasons. progress is called as `read_batches` calls it, file after file.

    Raises:
        UserError: The campaign has no labels yet, a file cannot be read, or rows are invalid: names the first.
        StoreError: The workspace cannot be read or written.
    """
    if not reviewer.strip():
        raise UserError("a verdict needs a reviewer; give --reviewer a name")
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with ExitStack() as open_files:
        with Ledger.load(workspace, run) as ledger:
            labels = read_run_labels(workspace, run, ledger, current)
            now = datetime.now(UTC)
            sizes = partial(image_sizes, workspace, run, ledger, current.fingerprint)
            checked = []
            for path in paths:
                given = min(_changed(path), now)
                checker = RowChecker(current.classes, reviewer.strip(), given, now, current.names)
                checked.append(check_file(path, checker, labels, sizes, progress))
                open_files.callback(checked[-1].verdicts.close)
        if not skip_bad:
            _refuse([file for file in checked if file.refused])
        asked = [tasks["label_id"].drop_null() for _, tasks in read_plans(workspace, run)]
        ids = pa.chunked_array([labels.label_ids, *(chunk for column in asked for chunk in column.chunks)], pa.string())
        known = np.sort(
            np.concatenate(
                [np.zeros(0, np.uint64), *(row_hashes(one, VERDICTS.names) for one in verdict_tables(workspace))]
            )
        )
        outcomes = []
        for file in checked:
            outcome, known = _add(workspace, file, known, ids, labels)
            outcomes.append(outcome)
    return outcomes


class Refused(NamedTuple):
    """A row that is no verdict."""

    number: int
    """Of the row, for people."""
    reason: str
    row: Mapping[str, Any]
    """Its columns."""


class Kept:
    """Tables of verdicts, written once and read once or more; beyond some size in a temporary file."""

    def __init__(self) -> None:
        """Begin empty."""
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by `close`
        self._writer = pa.ipc.new_stream(self._file, VERDICTS, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Append a table as one batch."""
        for batch in table.combine_chunks().to_batches():
            self._writer.write_batch(batch)
            self.rows += batch.num_rows

    def tables(self) -> Iterator[pa.Table]:
        """Give them back, in order."""
        self._writer.close()
        self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            yield pa.Table.from_batches([batch])

    def close(self) -> None:
        """Let the memory and the file go."""
        self._file.close()


class CheckedFile(NamedTuple):
    """What a verdict file holds."""

    path: Path
    rows: int
    unanswered: int
    """Rows without a verdict."""
    refused: list[Refused]
    """Rows that are no verdicts, in their order."""
    verdicts: Kept
    """All rows that are verdicts by themselves, as rows of schemas.reviews.VERDICTS."""
    fine: NDArray[np.bool_]
    """Which of these are not refused."""

    def tables(self) -> Iterator[pa.Table]:
        """The verdicts, a part at a time."""
        start = 0
        for table in self.verdicts.tables():
            fine = self.fine[start : start + table.num_rows]
            start += table.num_rows
            yield _without_idle_corrections(table.filter(pa.array(fine)))


def _add(
    workspace: Store, file: CheckedFile, known: NDArray[np.uint64], ids: pa.ChunkedArray, labels: RunLabels
) -> tuple[ImportOutcome, NDArray[np.uint64]]:
    """Add the verdicts of a file that are not known; ids are all that may be judged, honeypots included.

    known are hashes of the verdicts that are there, ascending; they come back with the new ones.
    """
    refused_file = _write_refused(file) if file.refused else None
    imported = verdicts = unknown_labels = unknown_images = 0
    for table in file.tables():
        hashes = row_hashes(table, VERDICTS.names)
        fresh = np.zeros(table.num_rows, np.bool_)
        fresh[first_rows(table, VERDICTS.names)] = True
        if len(known):
            fresh &= known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] != hashes
        write_verdicts(workspace, table.filter(pa.array(fresh)))
        known = np.sort(np.concatenate([known, hashes[fresh]]))
        imported, verdicts = imported + int(fresh.sum()), verdicts + table.num_rows
        about_image = pa.array(_among(table, IMAGE_VERDICTS))
        unknown_labels += _unknown(table.filter(pc.invert(about_image))["label_id"], ids)
        unknown_images += _unknown(table.filter(about_image)["key"], labels.keys)
    outcome = ImportOutcome(
        file=str(file.path),
        rows=file.rows,
        imported=imported,
        known=verdicts - imported,
        unanswered=file.unanswered,
        refused=len(file.refused),
        refused_file=refused_file,
        unknown_labels=unknown_labels,
        unknown_images=unknown_images,
    )
    return outcome, known


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
    lines = [
        f"nothing was imported: {len(file.refused):,} of {plural(file.rows, 'row')} of {file.path} "
        f"{'is' if len(file.refused) == 1 else 'are'} invalid"
        for file in files
    ]
    lines[-1] += ": fix them, or leave them out by --skip-bad"
    for file in files:
        lines += [f"{file.path}: row {one.number}: {one.reason}" for one in file.refused[:NAMED_PROBLEMS]]
        if len(file.refused) > NAMED_PROBLEMS:
            lines.append(f"{file.path}: and {plural(len(file.refused) - NAMED_PROBLEMS, 'row')} more")
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


class _Checked:
    """What is gathered while the batches of a file go by."""

    def __init__(self, checker: RowChecker, labels: RunLabels, sizes: Sizes) -> None:
        self._checker, self._labels, self._sizes = checker, labels, sizes
        self.refused: list[Refused] = []
        self.kept = Kept()
        self.rows = self.unanswered = 0
        self._tables: list[pa.Table] = []
        self._pending = 0
        self._numbers = array("i")
        self._fine, self._about_label = bytearray(), bytearray()
        self._identity: list[NDArray[np.uint64]] = []
        self._content: list[NDArray[np.uint64]] = []

    def add(self, batch: Batch) -> None:
        """Check the rows of a batch by themselves; those that are verdicts wait for the next look."""
        self.rows += batch.rows
        found = check_columns(batch.columns, batch.rows, self._checker) if batch.columns is not None else None
        left = np.arange(batch.rows) if found is None else np.flatnonzero(~(found.taken | found.unanswered))
        rows, taken = [], []
        for at, (number, row) in zip(left.tolist(), batch.rows_at(left), strict=True):
            try:
                one = self._checker.check(row)
            except RowError as error:
                self._refuse(Refused(number, str(error), row))
                continue
            if one is None:
                self.unanswered += 1
                continue
            rows.append(one)
            taken.append(at)
        table, places = pa.Table.from_pylist(rows, schema=VERDICTS), np.array(taken, np.int64)
        if found is not None:
            self.unanswered += int(found.unanswered.sum())
            places = np.concatenate([np.flatnonzero(found.taken), places])
            order = np.argsort(places, kind="stable")
            table = pa.concat_tables([found.verdicts, table])
            if rows:
                table = table.take(pa.array(order, pa.int64()))
            places = places[order]
        self._numbers.extend(batch.numbers[places].tolist())
        self._tables.append(table)
        self._pending += table.num_rows
        if self._pending >= _CHUNK_ROWS:
            self.look()

    def look(self) -> None:
        """Hold what waits against labels and images, and put it away."""
        table = pa.concat_tables([VERDICTS.empty_table(), *self._tables]).combine_chunks()
        self._tables.clear()
        self._pending = 0
        place = flat(pc.index_in(table["label_id"], value_set=self._labels.label_ids))
        of_label = pa.array(self._labels.class_index, pa.int64()).take(place)
        late = _against_labels(table, pa.array(self._labels.class_names, pa.string()).take(of_label))
        late |= _against_images(table, place, self._labels, self._sizes)
        fine = np.ones(table.num_rows, np.bool_)
        fine[list(late)] = False
        start = len(self._fine)
        for at, reason in late.items():
            self._refuse(Refused(self._numbers[start + at], reason, table.slice(at, 1).to_pylist()[0]))
        self._fine += fine.tobytes()
        self._about_label += (~_among(table, IMAGE_VERDICTS)).tobytes()
        self._identity.append(row_hashes(table, _IDENTITY))
        self._content.append(row_hashes(table, _CONTENT))
        self.kept.add(table)

    def contradictions(self) -> None:
        """Refuse rows by which one reviewer gives two verdicts on one label at one time: which is later is unknown."""
        identity = np.concatenate(self._identity)
        self._identity.clear()
        rows = np.flatnonzero(_again(identity) & np.frombuffer(self._about_label, np.bool_))
        if not len(rows):
            return
        identity, content = identity[rows], np.concatenate(self._content)[rows]
        order = np.argsort(identity, kind="stable")
        identity, content = identity[order], content[order]
        again = np.append(False, identity[1:] == identity[:-1])
        # Of each group the first one's place among all.
        first = np.maximum.accumulate(np.where(again, 0, np.arange(len(again))))
        wrong = np.flatnonzero(content != content[first])
        if not len(wrong):
            return
        before = {int(rows[order[at]]): int(rows[order[first[at]]]) for at in wrong.tolist()}
        found = {at: number for at, number in sorted(before.items()) if self._fine[at]}
        start = 0
        for table in self.kept.tables():
            for at in [at for at in found if start <= at < start + table.num_rows]:
                reason = f"says otherwise than row {self._numbers[found[at]]} of the same label, reviewer and time"
                self._refuse(Refused(self._numbers[at], reason, table.slice(at - start, 1).to_pylist()[0]))
            start += table.num_rows
        for at in found:
            self._fine[at] = 0

    def result(self, path: Path) -> CheckedFile:
        """What the file holds."""
        self.refused.sort(key=lambda one: one.number)
        return CheckedFile(
            path, self.rows, self.unanswered, self.refused, self.kept, np.frombuffer(self._fine, np.bool_)
        )

    def _refuse(self, row: Refused) -> None:
        if len(self.refused) >= MOST_REFUSED:
            first = self.refused[0]
            raise UserError(
                f"more than {MOST_REFUSED:,} rows are invalid, the first of them row {first.number}: {first.reason}"
            )
        self.refused.append(row)


def _again(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of them are there more than once, (N,)."""
    ascending = np.sort(hashes)
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    if not len(twice):
        return np.zeros(len(hashes), np.bool_)
    return np.asarray(twice[np.minimum(np.searchsorted(twice, hashes), len(twice) - 1)] == hashes)


def check_file(
    path: Path, checker: RowChecker, labels: RunLabels, sizes: Sizes, progress: OnRows | None = None
) -> CheckedFile:
    """Read and check a verdict file; verdicts on labels of other runs are trusted.

    Raises:
        UserError: The file cannot be read, or is not made of rows and known columns, or most of it is invalid.
    """
    checked = _Checked(checker, labels, sizes)
    try:
        for batch in read_batches(path, progress):
            checked.add(batch)
        checked.look()
        checked.contradictions()
    except BaseException:
        checked.kept.close()
        raise
    return checked.result(path)


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
    """Rows whose box lies wholly outside its image, or whose mask has not its size."""
    sides = boxes_of(table)
    boxed = ~np.isnan(sides[:, 0]) & ~_among(table, _WITHOUT_CORRECTION)
    masked = numbers(table["rle_counts"].is_valid(), np.bool_) & ~_among(table, _WITHOUT_MASK)
    rows = np.flatnonzero(boxed | masked)
    at = pa.array(rows, pa.int64())
    image = pa.array(labels.image_index, pa.int64()).take(place.take(at))
    keys = pc.coalesce(labels.keys.take(image), flat(table["key"]).take(at)).dictionary_encode()
    names = keys.dictionary.to_pylist()
    size_of = sizes(set(names))
    known = [size_of.get(name, (None, None)) for name in names]
    # One entry more, of rows without a key.
    extent = np.array([[np.inf if side is None else side for side in size] for size in [*known, (None, None)]])
    codes = numbers(keys.indices.fill_null(len(names)), np.int64)
    outside = boxed[rows] & ((sides[rows, 2:] <= 0) | (sides[rows, :2] >= extent[codes])).any(axis=1)
    found = {}
    for row, code in zip(rows[outside].tolist(), codes[outside].tolist(), strict=True):
        x0, y0, x1, y1 = sides[row]
        width, height = extent[code]
        size = f" of {width:g} x {height:g}" if np.isfinite(width) else ""
        found[row] = f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside its image{size}"
    for row, code in zip(rows[masked[rows]].tolist(), codes[masked[rows]].tolist(), strict=True):
        width, height = [*known, (None, None)][code]
        if problem := mask_trouble(table["rle_counts"][row].as_py(), height, width):
            found[row] = f"rle_counts: {problem}"
    return found


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
