"""Reads and writes tables for other tools: CSV, Parquet, JSON or JSON lines, by the file's suffix."""

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

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

Row = tuple[int, dict[str, Any]]
"""Number of the row for people (the header of a CSV file is row 1), and its columns."""


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a verdict file, a few in memory at a time (all of them for a JSON array).

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
            for count, row in enumerate(_READERS[suffix](file, path), 1):
                if count > MOST_ROWS:
                    raise UserError(f"{path} has more than {MOST_ROWS:,} rows; split it")
                yield row
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _read_csv(file: BinaryIO, path: Path) -> Iterator[Row]:
    # Of the whole process, and twice a mask, so that one too long is refused as a row and not with the file.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MOST_RLE_BYTES))
    rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        names = _header(next(rows, []), path)
        for cells in rows:
            if any(cells):
                if len(cells) != len(names):
                    raise UserError(
                        f"{path}: row {rows.line_num} has {len(cells)} cells, the header {len(names)}; fix the row"
                    )
                yield rows.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: row {rows.line_num} is not CSV ({error}); fix it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 after row {rows.line_num}; save it as UTF-8") from None


def _read_parquet(file: BinaryIO, path: Path) -> Iterator[Row]:
    try:
        table = pq.ParquetFile(file)
        about = table.metadata
        size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        if size > 4 * MOST_BYTES:
            raise UserError(f"{path} would take {size / 2**30:,.1f} GiB of memory; split it")
        names = _header(table.schema_arrow.names, path)
        wanted = [name for name, known in zip(table.schema_arrow.names, names, strict=True) if known in COLUMNS]
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            columns = {name.strip().lower(): _values(batch.column(name)) for name in wanted}
            for values in zip(*columns.values(), strict=True):
                number += 1
                yield number, dict(zip(columns, values, strict=True))
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())}); fix it") from None


def _read_json(file: BinaryIO, path: Path) -> Iterator[Row]:
    found = _parsed(file.read(), f"{path}")
    if not isinstance(found, list):
        raise UserError(f"{path} is not an array of objects; write [{{...}}, ...], or objects one a line in a .jsonl")
    yield from _objects(enumerate(found, 1), path)


def _read_jsonl(file: BinaryIO, path: Path) -> Iterator[Row]:
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    yield from _objects(((number, _parsed(line, f"{path}: row {number}")) for number, line in lines), path)


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
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(COLUMNS)}"
            raise UserError(f"{path}: unknown column {written[:60]!r}; {hint}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"{path}: the column {min(twice)} is there twice; remove one")
    return names


def _header(given: Sequence[str], path: Path) -> list[str]:
    """The columns of a whole table: verdicts must be among them, and the commas right."""
    if len(given) == 1 and (";" in given[0] or "\t" in given[0]):
        raise UserError(f"{path}: columns are not separated by commas; save it as CSV with commas")
    names = _known_columns(given, path)
    if "verdict" not in names:
        raise UserError(f"{path} has no column 'verdict'; add it, with one of {', '.join(VERDICT_KINDS)} in each row")
    return names


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # Nanoseconds have no place in Python's datetime.
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


_READERS: Final[dict[str, Callable[[BinaryIO, Path], Iterator[Row]]]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
}


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


def _write_parquet(file: BinaryIO, table: pa.Table) -> None:
    pq.write_table(table, file, compression="zstd")


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
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
}
