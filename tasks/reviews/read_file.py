"""Reads and writes tables for other tools: CSV, Parquet, JSON or JSON lines, by the file's suffix."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import nearest
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import IMAGE_VERDICTS, LABEL_VERDICTS, MOST_RLE_BYTES, VERDICTS
from vouch_labels.tasks.store.local import temporary_name
from vouch_labels.tasks.store.private import private

SHOWN: Final = ("image", "shown_class", "shown_x0", "shown_y0", "shown_x1", "shown_y1", "row", "reason")
"""Columns by which exported tasks say what is asked, and refused rows why; no part of an answer, passed over."""
COLUMNS: Final = tuple(VERDICTS.names)
"""Columns that a verdict file may have, beside SHOWN."""
VERDICT_KINDS: Final = (*LABEL_VERDICTS, *IMAGE_VERDICTS)
MOST_BYTES: Final = 1 << 30
MOST_JSON_BYTES: Final = 1 << 28
"""A JSON array is parsed as a whole, at many times its size."""
MOST_ROWS: Final = 20_000_000

_BATCH_ROWS: Final = 16_384
_PARQUET_ROWS: Final = 65_536
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+")

MOST_LINE: Final = 1 << 23
"""Bytes or characters of a line: masks may have one MiB, and people write notes."""

Row = tuple[int, dict[str, Any]]
"""Number of the row for people (the header of a CSV file is row 1), and its columns."""

OnRows = Callable[[int, int], None]
"""Called with what is read of a file and all of it, bytes or rows."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a verdict file, one after the other."""

    numbers: NDArray[np.int64]
    """(N,) numbers of the rows for people."""
    listed: Sequence[dict[str, Any]] = ()
    """N rows, where the file is read row by row."""
    columns: dict[str, pa.Array] | None = None
    """The columns by name, N values each, where it is read by columns."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.numbers)

    def rows_at(self, places: NDArray[np.int64]) -> list[Row]:
        """Rows at some places, ascending."""
        numbers = self.numbers[places].tolist()
        if self.columns is None:
            return [(number, self.listed[at]) for number, at in zip(numbers, places.tolist(), strict=True)]
        at = pa.array(places, pa.int64())
        values = {name: python_values(column.take(at)) for name, column in self.columns.items()}
        rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
        return list(zip(numbers, rows, strict=True))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a verdict file; see `read_batches`."""
    for batch in read_batches(path):
        yield from batch.rows_at(np.arange(batch.rows))


def read_batches(path: Path, progress: OnRows | None = None) -> Iterator[Batch]:
    """Yield the rows of a verdict file, a few at a time (a JSON array is held whole).

    Raises:
        UserError: The file cannot be read, is too large, is not what its suffix says, or has an unknown column.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UserError(f"{path}: a verdict file is a {', '.join(_READERS)} file; rename or convert it")
    most = MOST_JSON_BYTES if suffix == ".json" else MOST_BYTES
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size > most:
                other = ", or use .jsonl" if suffix == ".json" else ""
                raise UserError(
                    f"{path} has {size / 2**20:,.0f} MiB; split it into files up to {most >> 20} MiB{other}"
                )
            rows = 0
            reader = _READERS[suffix]
            listed = None if reader is None else _listed(reader(file, path), file, path, progress)
            for batch in listed or _read_parquet(file, path, progress):
                rows += batch.rows
                if rows > MOST_ROWS:
                    raise UserError(f"{path} has more than {MOST_ROWS:,} rows; split it")
                yield batch
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _listed(rows: Iterable[Row], file: BinaryIO, path: Path, progress: OnRows | None) -> Iterator[Batch]:
    """Batches of rows that come one by one."""
    size = path.stat().st_size
    waiting = iter(rows)
    while found := list(islice(waiting, _BATCH_ROWS)):
        numbers, values = zip(*found, strict=True)
        if progress is not None:
            progress(min(file.tell(), size), size)
        yield Batch(np.array(numbers, np.int64), values)


def _csv_rows(file: BinaryIO, path: Path) -> Iterator[Row]:
    # Of the whole process, and twice a mask, so that one too long is refused as a row and not with the file.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MOST_RLE_BYTES))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    told, rows = 0, None
    try:
        first = text.readline(MOST_LINE)
        # A comma, or the semicolon or tab that Excel writes in many countries.
        delimiter = max(",;\t", key=first.count)
        if first.lower().startswith("sep=") and len(first.strip()) == 5:  # Excel is told so
            told, delimiter = 1, first[4]
            first = text.readline(MOST_LINE)
        rows = csv.reader(chain([first], _lines(text, path)), strict=True, delimiter=delimiter)
        names = _header(next(rows, []), path)
        for cells in rows:
            number = rows.line_num + told
            if any(cells):
                if len(cells) != len(names):
                    raise UserError(
                        f"{path}: row {number} has {len(cells)} cells, the header {len(names)}; fix the row"
                    )
                values = map(_decimal_point, cells) if delimiter == ";" else cells
                yield number, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: row {told + (rows.line_num if rows else 1)} is not CSV ({error}); fix it") from None
    except UnicodeDecodeError:
        number = told + (rows.line_num if rows else 0)
        raise UserError(f"{path} is not UTF-8 after row {number}; save it as UTF-8") from None
    finally:
        text.detach()


def _decimal_point(cell: str) -> str:
    """Where semicolons stand between cells, a comma stands in numbers."""
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def _lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    while line := text.readline(MOST_LINE):
        if len(line) == MOST_LINE:
            raise UserError(f"{path}: a line has more than {MOST_LINE >> 20} MiB; it is no verdict")
        yield line


def _read_parquet(file: BinaryIO, path: Path, progress: OnRows | None) -> Iterator[Batch]:
    try:
        table = pq.ParquetFile(file, buffer_size=1 << 20)
        about = table.metadata
        size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        if size > 4 * MOST_BYTES:
            raise UserError(f"{path} would take {size / 2**30:,.1f} GiB of memory; split it")
        if about.num_rows > MOST_ROWS:
            raise UserError(f"{path} has more than {MOST_ROWS:,} rows; split it")
        names = _header(table.schema_arrow.names, path)
        wanted = [name for name, known in zip(table.schema_arrow.names, names, strict=True) if known in COLUMNS]
        done = 0
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
            columns = {name.strip().lower(): batch.column(name) for name in wanted}
            for name, column in columns.items():
                _check_text(name, column, done + 1, path)
            yield Batch(np.arange(done + 1, done + 1 + batch.num_rows), columns=columns)
            done += batch.num_rows
            if progress is not None:
                progress(done, about.num_rows)
    except (pa.ArrowException, ValueError, TypeError, OSError) as error:
        # Arrow's own faults come as OSError too, without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())}); fix it") from None


def _check_text(name: str, column: pa.Array, first: int, path: Path) -> None:
    """Parquet may hold any bytes as text, and Arrow trusts them."""
    text = column.dictionary if pa.types.is_dictionary(column.type) else column
    if not (pa.types.is_string(text.type) or pa.types.is_large_string(text.type)):
        return
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        for row, value in enumerate(column, first):
            try:
                value.as_py()
            except UnicodeDecodeError:
                raise UserError(f"{path}: row {row}: {name} is not UTF-8; write it as UTF-8") from None
        raise UserError(f"{path}: the column {name} is not UTF-8; write it as UTF-8") from None


def _json_rows(file: BinaryIO, path: Path) -> Iterator[Row]:
    found = _parsed(file.read(), f"{path}")
    if not isinstance(found, list):
        raise UserError(f"{path} is not an array of objects; write [{{...}}, ...], or objects one a line in a .jsonl")
    yield from _objects(enumerate(found, 1), path)


def _jsonl_rows(file: BinaryIO, path: Path) -> Iterator[Row]:
    def values() -> Iterator[tuple[int, object]]:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), 1):
            if len(line) == MOST_LINE:
                raise UserError(f"{path}: row {number} has more than {MOST_LINE >> 20} MiB; it is no verdict")
            if line.strip():
                yield number, _parsed(line, f"{path}: row {number}")

    return _objects(values(), path)


def _objects(values: Iterable[tuple[int, object]], path: Path) -> Iterator[Row]:
    known: dict[tuple[str, ...], list[str]] = {}
    for number, value in values:
        if not isinstance(value, dict):
            raise UserError(f"{path}: row {number} is not an object; write {{...}}")
        keys = tuple(value)
        if keys not in known:
            known[keys] = _known_columns(keys, path)
        yield number, dict(zip(known[keys], value.values(), strict=True))


def _parsed(data: bytes, where: str) -> object:
    try:
        return json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}); fix it") from None


def _known_columns(given: Iterable[str], path: Path) -> list[str]:
    names = [name.strip().lower() for name in given]
    for name, written in zip(names, given, strict=True):
        if name not in COLUMNS and name not in SHOWN:
            near = nearest(name, COLUMNS)
            hint = f"did you mean {near}?" if near else f"use {', '.join(COLUMNS)}"
            raise UserError(f"{path}: unknown column {written[:60]!r}; {hint}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"{path}: the column {min(twice)} is there twice; remove one")
    return names


def _header(given: Sequence[str], path: Path) -> list[str]:
    """The columns of a whole table: verdicts must be among them."""
    names = _known_columns(given, path)
    if "verdict" not in names:
        raise UserError(f"{path} has no column 'verdict'; add it, with one of {', '.join(VERDICT_KINDS)} in each row")
    return names


def python_values(column: pa.Array) -> list[Any]:
    """Values as Python has them; what it cannot hold as words that no check takes for a value."""
    if pa.types.is_timestamp(column.type):
        # Nanoseconds have no place in Python's datetime; zones by name may be unknown here.
        zone = None if column.type.tz is None else "UTC"
        with suppress(pa.ArrowInvalid):
            column = column.cast(pa.timestamp("us", tz=zone), safe=column.type.unit != "ns")
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        values = [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        return f"a {scalar.type} out of range"


_READERS: Final[dict[str, Callable[[BinaryIO, Path], Iterator[Row]] | None]] = {
    ".csv": _csv_rows,
    ".parquet": None,
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
}
"""Suffix -> how rows come one by one; None for Parquet, whose columns come together."""


def check_suffix(path: Path) -> None:
    """Make sure that a table can be written to a file of this name.

    Raises:
        UserError: The suffix is none of those known.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"{path}: cannot tell the format; name it {', '.join(f'*{suffix}' for suffix in _WRITERS)}")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table whole, or leave what was there as it was.

    Times are written as ISO 8601, what is missing as null, or as an empty cell in CSV, masks as their run lengths.

    Raises:
        UserError: The suffix is unknown, or the file cannot be written.
    """
    check_suffix(path)
    temporary = path.with_name(temporary_name())
    try:
        try:
            with open(temporary, "xb", opener=private) as file:
                _WRITERS[path.suffix.lower()](file, table)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another file") from None


def _write_csv(file: BinaryIO, table: pa.Table) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(table.column_names)
    rows.writerows(row.values() for row in _rows(table))
    text.detach()


def _write_json(file: BinaryIO, table: pa.Table) -> None:
    for number, row in enumerate(_rows(table)):
        file.write((",\n" if number else "[\n").encode() + _object(row))
    file.write(b"\n]\n" if table.num_rows else b"[]\n")


def _write_jsonl(file: BinaryIO, table: pa.Table) -> None:
    for row in _rows(table):
        file.write(_object(row) + b"\n")


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield {name: _plain(value) for name, value in row.items()}


def _object(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    # Run lengths of a mask, which are ASCII.
    return value.decode("ascii") if isinstance(value, bytes) else value


_WRITERS: Final[dict[str, Callable[[BinaryIO, pa.Table], None]]] = {
    ".csv": _write_csv,
    ".parquet": lambda file, table: pq.write_table(table, file, compression="zstd"),
    ".json": _write_json,
    ".jsonl": _write_jsonl,
}
