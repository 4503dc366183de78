"""Holds what a container (a tar, Parquet or video file) has inside, and keeps it in the workspace for later runs."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vouch_labels.schemas.errors import ContainerError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH: Final = 1 << 16
TWICE: Final = "names that stand later in the same tar file once more"
"""The kind under which members are counted that another one of the same name replaces, as in unpacking."""
_ABOUT: Final = b"vouch"


class Member(NamedTuple):
    """One image inside a container."""

    name: str
    """Its key without the container's: relative, with forward slashes, no empty part, no `.` and `..`."""
    place: int
    """First byte in a tar, row of a Parquet file, milliseconds of a video."""
    size: int
    """Bytes; -1: not known before it is read."""


class Members(NamedTuple):
    """What a container has inside."""

    table: "pa.Table"
    """Columns of Member, a row each, in the order of the names' UTF-8 bytes; no name twice."""
    left_out: Mapping[str, int]
    """Kind -> members that stand for no file."""
    damaged: str
    """Why the container, or what comes behind these members, cannot be read; empty: it is whole."""
    about: Mapping[str, Any]
    """What reading the members takes beside the table, by the kind of container."""

    def __iter__(self) -> Iterator[Member]:
        """Yield the members, in the order of their names."""
        for batch in self.table.to_batches(max_chunksize=BATCH):
            yield from map(Member, *(column.to_pylist() for column in batch.columns))

    def find(self, name: str) -> int:
        """Give the row of a name; -1: there is no such member."""
        names = self.table.column("name")
        low, high = 0, len(names)
        while low < high:
            middle = (low + high) // 2
            if names[middle].as_py() < name:
                low = middle + 1
            else:
                high = middle
        return low if low < len(names) and names[low].as_py() == name else -1

    def row(self, number: int) -> Member:
        """Give the member of a row."""
        return Member(*(column[number].as_py() for column in self.table.columns))


class Gathering:
    """Gathers members one by one, in memory that is small even where there are millions."""

    def __init__(self) -> None:
        """Begin without any."""
        self._tables: list[pa.Table] = []
        self._rows: list[Member] = []
        self.left_out = Counter[str]()

    def add(self, member: Member) -> None:
        """Take the next one."""
        self._rows.append(member)
        if len(self._rows) == BATCH:
            self._flush()

    def members(self, damaged: str = "", **about: object) -> Members:
        """Sort what was gathered; of several members of one name the last one stands."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._flush()
        table = pa.concat_tables(self._tables).combine_chunks()
        table = table.append_column("order", pa.array(range(len(table)), pa.int64()))
        table = table.sort_by([("name", "ascending"), ("order", "ascending")]).drop_columns("order").combine_chunks()
        if len(table) > 1:
            names = table.column("name")
            last = pc.not_equal(names.slice(0, len(table) - 1), names.slice(1))
            keep = pa.chunked_array([*last.chunks, pa.array([True])])
            whole = len(table)
            table = table.filter(keep)
            if len(table) < whole:
                self.left_out[TWICE] += whole - len(table)
        return Members(table, dict(self.left_out), damaged, about)

    def _flush(self) -> None:
        import pyarrow as pa

        schema = pa.schema([("name", pa.string()), ("place", pa.int64()), ("size", pa.int64())])
        columns = list(zip(*self._rows, strict=True)) or [(), (), ()]
        self._tables.append(pa.table([list(column) for column in columns], schema=schema))
        self._rows = []


def to_bytes(members: Members) -> bytes:
    """Lay members out as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"left_out": members.left_out, "damaged": members.damaged, "about": members.about}
    sink = pa.BufferOutputStream()
    table = members.table.replace_schema_metadata({_ABOUT: json.dumps(about, sort_keys=True)})
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def from_bytes(data: bytes) -> Members:
    """Read what `to_bytes` gave.

    Raises:
        ContainerError: It is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        about = json.loads(table.schema.metadata[_ABOUT])
        return Members(table.select(["name", "place", "size"]), about["left_out"], about["damaged"], about["about"])
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise ContainerError("no list of members") from error


def member_name(name: str) -> str | None:
    """Clean a name that stands in a container, which nobody vouches for; None: it leads outside, or is no text.

    As when a tar is unpacked, a slash or `./` in front is left out.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if not parts or ".." in parts or "\0" in name:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that were no UTF-8
        return None
    return "/".join(parts)
