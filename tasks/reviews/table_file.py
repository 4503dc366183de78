"""Writes a table for other tools: CSV, Parquet, JSON or JSON lines, by the file's suffix."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UserError
from tasks.store.local import temporary_name

_BATCH_ROWS: Final = 16_384


def check_suffix(path: Path) -> None:
    """Make sure that a table can be written to a file of this name.

    Raises:
        UserError: The suffix is none of those known.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"{path}: cannot tell the format; name it {', '.join(f'*{suffix}' for suffix in _WRITERS)}")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table whole, or leave what was there as it was.

    Args:
        path: The file; times are written as ISO 8601, what is missing as null, or as an empty cell in CSV.
        table: Its rows; of binary columns only masks, as their run lengths.

    Raises:
        UserError: The suffix is unknown, or the file cannot be written.
    """
    check_suffix(path)
    temporary = path.with_name(temporary_name())
    try:
        try:
            with temporary.open("xb") as file:
                _WRITERS[path.suffix.lower()](file, table)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another file") from None


def _csv(file: BinaryIO, table: pa.Table) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(table.column_names)
    rows.writerows(row.values() for row in _rows(table))
    text.detach()


def _parquet(file: BinaryIO, table: pa.Table) -> None:
    pq.write_table(table, file, compression="zstd")


def _json(file: BinaryIO, table: pa.Table) -> None:
    for number, row in enumerate(_rows(table)):
        file.write((",\n" if number else "[\n").encode() + _object(row))
    file.write(b"\n]\n" if table.num_rows else b"[]\n")


def _jsonl(file: BinaryIO, table: pa.Table) -> None:
    for row in _rows(table):
        file.write(_object(row) + b"\n")


_WRITERS: Final[dict[str, Callable[[BinaryIO, pa.Table], None]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".json": _json,
    ".jsonl": _jsonl,
}


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield {name: _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    # Run lengths of a mask, which are ASCII.
    return value.decode("ascii") if isinstance(value, bytes) else value


def _object(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()
