"""Reads images out of a column of a Parquet file, as data sets of Hugging Face have them, page by page."""

import json
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping
from itertools import accumulate
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from vouch_labels.schemas.errors import ContainerError
from vouch_labels.tasks.store.cursor import Cursor, Item
from vouch_labels.tasks.store.members import Gathering, Member, Members
from vouch_labels.tasks.store.ranges import RangeFile
from vouch_labels.tasks.store.store import ObjectInfo, Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

NO_IMAGES: Final = "Parquet without a column of images (source.image_column names one)"
"""The kind under which such files are counted."""
_NAMES: Final = (
    *("image", "img", "images", "picture", "photo", "image_bytes", "image_data"),
    *("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "bytes", "content"),
)
"""Names of binary columns that are taken for images, the most likely first."""
_MOST_READ: Final = 512 << 20
"""Bytes of a part that is read at once: a page, which holds up to 1,024 images of a row group, or the footer."""
_BUFFER: Final = 4 << 20
_BATCH: Final = 8
"""Rows that are taken at a time."""
_BACK: Final = 64
"""Rows before the one asked for that are kept too: threads ask nearly in order."""
_DIGITS: Final = 6
_LONGEST_SUFFIX: Final = 5

Rows = Generator[tuple[int, Item], None, None]


def read_parquet(store: Store, info: ObjectInfo, column: str | None) -> Members:
    """List the rows of a Parquet file with a column of images: 000000.jpg, 000001.jpg ...

    The column is the one named, else the first of type Image by Hugging Face's own metadata, else the first struct with
    `bytes`, else a binary one of a usual name. The suffix is that of `path` beside the bytes, none without it. Of the
    file the footer and the paths are read.

    Raises:
        StoreError: As `Store.get_range`.
    """
    import pyarrow as pa

    found = Gathering()
    file = RangeFile(store, info, _MOST_READ)
    try:
        parquet = _opened(file)
        chosen = _column(parquet.schema_arrow, column)
        if chosen is None:
            found.left_out[NO_IMAGES] += 1
            return found.members()
        data, path = chosen
        groups = [parquet.metadata.row_group(number).num_rows for number in range(parquet.metadata.num_row_groups)]
        digits = max(_DIGITS, len(str(sum(groups) - 1)))
        for number, suffix in enumerate(_suffixes(parquet, path, sum(groups))):
            found.add(Member(f"{number:0{digits}}{suffix}", number, -1))
        return found.members(column=data, groups=groups)
    except (pa.ArrowException, OSError, ValueError, ContainerError) as error:
        if file.error is not None:
            raise file.error from error
        return Gathering().members(_reason(error))


def rows_of(store: Store, info: ObjectInfo, about: Mapping[str, Any], most_kept: int) -> Cursor:
    """Open the images of a file for reading in the order of its rows.

    Args:
        store: Where it lies.
        info: The version of it that was listed.
        about: What `read_parquet` says of it.
        most_kept: Bytes of images that are kept for threads that come late.
    """
    column, starts = str(about["column"]), [0, *accumulate(about["groups"])]

    def group_of(row: int) -> int:
        return bisect_right(starts, row) - 1

    def enter(row: int) -> Rows:
        return _rows(RangeFile(store, info, _MOST_READ), column, starts, row)

    return Cursor(starts[-1], enter, lambda here, there: group_of(there) > group_of(here), most_kept)


def _rows(file: RangeFile, column: str, starts: list[int], first: int) -> Rows:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        parquet = _opened(file)
        group = bisect_right(starts, first) - 1
        row = starts[group]
        groups = list(range(group, len(starts) - 1))
        for batch in parquet.iter_batches(_BATCH, groups, [column], use_threads=False):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = pc.struct_field(values, [0])
            for value in values:
                if row >= first - _BACK:
                    data = value.as_py()
                    yield row, ContainerError("the row holds no image") if data is None else data
                row += 1
    except (pa.ArrowException, OSError, ValueError, ContainerError) as error:
        if file.error is not None:
            raise file.error from error
        raise ContainerError(_reason(error)) from error


def _opened(file: RangeFile) -> "pq.ParquetFile":
    import pyarrow.parquet as parquet

    # With a buffer a column is read page by page, without it a row group's at once.
    return parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def _suffixes(parquet: "pq.ParquetFile", path: str, rows: int) -> Iterator[str]:
    if not path:
        yield from ("" for _ in range(rows))
        return
    for batch in parquet.iter_batches(1 << 13, columns=[path], use_threads=False):
        for value in batch.column(0).to_pylist():
            name = value.get("path") if isinstance(value, dict) else value
            suffix = PurePosixPath(name).suffix if isinstance(name, str) else ""
            yield suffix if suffix[1:].isalnum() and len(suffix) <= _LONGEST_SUFFIX + 1 else ""


def _column(schema: "pa.Schema", wanted: str | None) -> tuple[str, str] | None:
    """The column of the images and the one of their paths (empty: there is none), as Parquet names them."""
    if wanted is not None:
        index = schema.get_field_index(wanted)
        return None if index < 0 else _leaves(schema.field(index))
    by_metadata = [name for name in _image_features(schema) if name in schema.names]
    structs = [field.name for field in schema if _bytes_of(field) == "struct"]
    binary = [name for name in _NAMES if name in schema.names and _bytes_of(schema.field(name)) == "binary"]
    for name in (*by_metadata, *structs, *binary):
        found = _leaves(schema.field(name))
        if found is not None:
            return found
    return None


def _leaves(field: "pa.Field") -> tuple[str, str] | None:
    kind = _bytes_of(field)
    if kind == "binary":
        return field.name, ""
    if kind != "struct":
        return None
    has_path = field.type.get_field_index("path") >= 0
    return f"{field.name}.bytes", f"{field.name}.path" if has_path else ""


def _bytes_of(field: "pa.Field") -> str:
    """How a column holds bytes: binary, or as a struct with a field `bytes`; empty: it does not."""
    import pyarrow as pa

    def is_binary(kind: "pa.DataType") -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))

    if is_binary(field.type):
        return "binary"
    if pa.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        return "struct" if index >= 0 and is_binary(field.type.field(index).type) else ""
    return ""


def _image_features(schema: "pa.Schema") -> list[str]:
    """Columns that Hugging Face's metadata calls images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if feature.get("_type") == "Image"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _reason(error: Exception) -> str:
    if isinstance(error, ContainerError):
        return str(error)
    words = " ".join(str(error).split())
    return f"damaged Parquet file: {words[:150] or type(error).__name__}"
