"""Lists a source's images from a manifest file instead of a listing, and filters keys by globs."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import ObjectMissingError, UserError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.store.open import open_uri
from vouch_labels.tasks.store.store import Store, map_ordered

if TYPE_CHECKING:
    import pyarrow as pa

LOOK_UP_THREADS = 16
BATCH_ROWS = 8192

_PLAIN_SUFFIX = re.compile(r"\*\*/\*([^*?\[\]/]*)")


class _Row(NamedTuple):
    number: int
    """1 for the first row of data or, in text files, the first line."""
    key: object
    etag: object = None
    size: object = None


def read_manifest(
    uri: str,
    s3: S3Options,
    *,
    base: Path | None = None,
    source: Store | None = None,
    look_up: bool = False,
) -> Iterator[ImageRef]:
    """Yield the images that a manifest names, in its own order, duplicates included, a few rows in memory at a time.

    A .txt file has a key a line; .csv (with a header), .jsonl and .parquet have a column `key` and may have `etag` and
    `size`; a row of .jsonl may also be a bare string. Keys are relative to the source; one that begins with the
    source's own uri is cut. An etag or size that the manifest does not give is "" or -1: such an image counts as
    unchanged for good, unless `look_up` asks the source.

    Args:
        uri: The manifest: a file or s3://bucket/key.
        s3: How to speak to the store of an s3:// manifest.
        base: Folder that a relative file starts from; the current one by default.
        source: The store that the keys belong to.
        look_up: Ask the source, in threads, for every etag and size, whatever the manifest says: for a folder, whose
            tags are its own. One request an image.

    Raises:
        UserError: The manifest is missing or of an unknown kind, or a row is wrong: names the row.
    """
    suffix = Path(uri).suffix.lower()
    if suffix not in READERS:
        raise UserError(f"{uri}: a manifest is a {', '.join(READERS)} file; rename or convert it")
    folder, _, name = uri.rpartition("/")
    store = open_uri(folder if folder or not uri.startswith("/") else "/", s3, base)
    try:
        with store.open_reader(name) as file:
            refs = (_ref(row, uri, source) for row in READERS[suffix](file, uri))
            yield from _looked_up(refs, source) if look_up and source is not None else refs
    except ObjectMissingError:
        raise UserError(f"the manifest {store.uri}/{name} does not exist; check source.manifest") from None


def _text(file: BinaryIO, uri: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(file, uri), 1):
        if line.strip():
            yield _Row(number, line.rstrip("\r\n"))


def _jsonl(file: BinaryIO, uri: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(file, uri), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(f"{uri}: row {number} is not JSON ({error}); fix it") from None
        if isinstance(value, dict):
            yield _Row(number, value.get("key"), value.get("etag"), value.get("size"))
        else:
            yield _Row(number, value)


_MOST_CELL: Final = 1 << 17


def _csv(file: BinaryIO, uri: str) -> Iterator[_Row]:
    rows = csv.reader(_lines(file, uri))
    header: list[str] = []
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        _need_key(header, uri)
        for cells in rows:
            # The module's own limit is the process's: whoever reads other files may have raised it.
            if max(map(len, cells), default=0) > _MOST_CELL:
                raise csv.Error(f"field larger than {_MOST_CELL:,} characters")
            if cells:
                row = dict(zip(header, cells, strict=False))
                yield _Row(rows.line_num, row.get("key"), row.get("etag"), row.get("size"))
    except csv.Error as error:
        raise UserError(f"{uri}: row {rows.line_num} is not CSV ({error}); fix it") from None


def _parquet(file: BinaryIO, uri: str) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        _need_key(names, uri)
        columns = [name for name in ("key", "etag", "size") if name in names]
        number = 0
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            keys, etags, sizes = (_column(batch, name) for name in ("key", "etag", "size"))
            for key, etag, size in zip(keys, etags, sizes, strict=True):
                number += 1
                yield _Row(number, key, etag, size)
    except pa.ArrowException as error:
        raise UserError(f"{uri} is not a readable Parquet file ({' '.join(str(error).split())}); fix it") from None


def _need_key(names: list[str], uri: str) -> None:
    if "key" not in names:
        raise UserError(
            f"{uri} has no column 'key' (it has: {', '.join(names) or 'none'}); rename the one with the keys"
        )


def _column(batch: "pa.RecordBatch", name: str) -> list[object]:
    index = batch.schema.get_field_index(name)
    return [None] * batch.num_rows if index < 0 else batch.column(index).to_pylist()


def _lines(file: BinaryIO, uri: str) -> Iterator[str]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    number = 0
    try:
        for line in text:
            number += 1
            yield line
    except UnicodeDecodeError:
        raise UserError(f"{uri}: row {number + 1} or one soon after is not UTF-8; save the file as UTF-8") from None


READERS: dict[str, Callable[[BinaryIO, str], Iterator[_Row]]] = {
    ".txt": _text,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
"""Suffix of the manifest -> its reader."""


def _ref(row: _Row, uri: str, source: Store | None) -> ImageRef:
    key = row.key
    if isinstance(key, str) and source is not None:
        key = key.removeprefix(f"{source.uri}/")
    if not isinstance(key, str) or not key.strip():
        raise UserError(f"{uri}: row {row.number} has no key; give one or delete the row")
    if "\0" in key or "://" in key or key.startswith("/") or ".." in key.split("/"):
        raise UserError(f"{uri}: row {row.number} has the key {key!r}, which is not relative to source.uri; fix it")
    if not _is_text(key):
        raise UserError(f"{uri}: row {row.number} has the key {key!r}, which is not valid Unicode; fix it")
    etag = "" if row.etag is None else str(row.etag).strip().strip('"')
    return ImageRef(key, etag, _size(row, uri))


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can spell
        return False
    return True


def _size(row: _Row, uri: str) -> int:
    if row.size is None or row.size == "":
        return -1
    try:
        size = int(str(row.size))
    except ValueError:
        size = -2
    if not -1 <= size < 2**63:
        raise UserError(f"{uri}: row {row.number} has the size {row.size!r}; give whole bytes or leave it empty")
    return size


def _looked_up(refs: Iterable[ImageRef], source: Store) -> Iterator[ImageRef]:
    def complete(ref: ImageRef) -> ImageRef:
        info = source.stat(ref.key)
        # One that does not exist stays as it is: fetching it will say so, for this image alone.
        return ref if info is None else ImageRef(*info)

    return map_ordered(complete, refs, LOOK_UP_THREADS)


def compile_filter(include: Iterable[str], exclude: Iterable[str] = ()) -> Callable[[str], bool]:
    """Make a function that tests whether a key is taken: some glob of `include` matches and none of `exclude`.

    Globs cover the whole key and pay no regard to case. `*` and `?` stop at a slash, `**/` stands for any number of
    folders, none included, `**` for anything, `[a-z]` and `[!a-z]` for one character. A slash or `./` in front is
    ignored. The test is fast enough for millions of keys.
    """
    taken, left_out = _matcher(include), _matcher(exclude)
    return lambda key: taken(key) and not left_out(key)


def _matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    suffixes: list[str] = []
    patterns: list[str] = []
    for glob in globs:
        # "**/*.jpg" is by far the most common form, and comparing ends is many times faster than a pattern.
        plain = _PLAIN_SUFFIX.fullmatch(glob)
        if plain:
            suffixes.append(plain[1].lower())
        else:
            patterns.append(_translate(glob.removeprefix("./").removeprefix("/")))
    ends = tuple(suffixes)
    pattern = re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL) if patterns else None
    if pattern is None:
        return lambda key: key.lower().endswith(ends)
    matches = pattern.fullmatch
    return lambda key: key.lower().endswith(ends) or matches(key) is not None


def _translate(glob: str) -> str:
    tokens = re.compile(
        r"(?P<folders>(?:(?<=/)|^)\*\*/)|(?P<anything>\*\*)|(?P<star>\*)|(?P<one>\?)"
        r"|\[(?P<negated>[!^]?)(?P<set>\]?[^\]/]*)\]|(?P<text>.)",
        re.DOTALL,
    )
    return "".join(_token(match) for match in tokens.finditer(glob))


def _token(match: re.Match[str]) -> str:
    fixed = {"folders": "(?:.*/)?", "anything": ".*", "star": "[^/]*", "one": "[^/]"}
    if match.lastgroup in fixed:
        return fixed[match.lastgroup]
    if match.lastgroup == "set":
        return _set(match["set"], negated=bool(match["negated"]))
    return re.escape(match["text"])


def _set(characters: str, *, negated: bool) -> str:
    if not characters:
        return re.escape("[!]" if negated else "[]")
    parts: list[str] = []
    for low, high, one in re.findall(r"(.)-(.)|(.)", characters, re.DOTALL):
        if one:
            parts.append(re.escape(one))
        elif low <= high:
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
    if not parts:  # only empty ranges, such as [z-a]
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]"
