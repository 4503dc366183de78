"""Writes the files of a data set: COCO as JSON or as Parquet, all images in one file or so many in each.

Every file streams and appears whole when it ends. Several files are those that one would be, cut between two images:
ids go on from file to file, and each has the categories, so each loads by itself.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from types import TracebackType
from typing import IO, Any, BinaryIO, Final, Protocol, Self

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.labels.records import AnnotationFile
from vouch_labels.tasks.store.store import Store

COPY_BYTES: Final = 1 << 20
GROUP_BYTES: Final = 8 << 20
"""JSON text that becomes a row group of Parquet, some 20,000 annotations with masks."""

_IMAGES: Final = pa.schema([
    ("id", pa.int64()),
    ("file_name", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("license", pa.int32()),
    ("video", pa.string()),
    ("timestamp_s", pa.float64()),
    ("exif_orientation", pa.int32()),
    ("not_exhaustive_category_ids", pa.list_(pa.int32())),
])  # fmt: skip
_ANNOTATIONS: Final = pa.schema([
    ("id", pa.int64()),
    ("image_id", pa.int64()),
    ("category_id", pa.int32()),
    ("bbox", pa.list_(pa.float64())),  # x, y, width, height in pixels
    ("area", pa.float64()),
    ("iscrowd", pa.int8()),
    ("segmentation", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),  # null without a mask
    ("score", pa.float64()),
    ("p_correct", pa.float64()),
    ("decision", pa.string()),
    ("policy", pa.string()),
    ("provenance", pa.string()),
    ("verdict", pa.string()),
    ("label_id", pa.string()),
])  # fmt: skip


class Document(Protocol):
    """A file that is being written."""

    def add(self, image: str, annotations: Sequence[str]) -> None:
        """Append one image and its annotations, each a JSON object as text."""


Open = Callable[[Store, str, Mapping[str, Any], Mapping[str, Any]], AbstractContextManager[Document]]


class FileSeries:
    """The files of one split and format; a context that ends the last one, or drops it when the block raises."""

    def __init__(
        self, open_file: Callable[[str], AbstractContextManager[Document]], key: str, most: int | None
    ) -> None:
        """Take what opens a file by its key, the key of the only one (`a.json`), and the images of each, None: all."""
        self._open, self._key, self._most = open_file, key, most
        self._keys: list[str] = []
        self._images: list[int] = []
        self._annotations: list[int] = []
        self._stack = ExitStack()

    @property
    def files(self) -> list[AnnotationFile]:
        """The files so far, and what each holds."""
        counts = zip(self._keys, self._images, self._annotations, strict=True)
        return [AnnotationFile(file=key, images=images, annotations=many) for key, images, many in counts]

    def __enter__(self) -> Self:
        """Open the first file: without an image, it holds none."""
        self._next()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End or drop the file that is open."""
        self._stack.__exit__(kind, error, at)

    def add(self, image: str, annotations: Sequence[str]) -> None:
        """Append one image and its annotations to the file whose turn it is."""
        if self._images[-1] == self._most:
            self._stack.close()
            self._next()
        self._document.add(image, annotations)
        self._images[-1] += 1
        self._annotations[-1] += len(annotations)

    def _next(self) -> None:
        stem, _, suffix = self._key.rpartition(".")
        key = self._key if self._most is None else f"{stem}-{len(self._keys):05d}.{suffix}"
        self._stack = ExitStack()
        self._document = self._stack.enter_context(self._open(key))
        self._keys.append(key)
        self._images.append(0)
        self._annotations.append(0)


class CocoDocument:
    """A COCO file that is being written: images go straight to it, annotations wait in a temporary file."""

    def __init__(self, out: BinaryIO, spool: IO[bytes]) -> None:
        """Take the file, its head written already, and the file that annotations wait in."""
        self._out = out
        self._spool = spool
        self.images = self.annotations = 0

    def add(self, image: str, annotations: Sequence[str]) -> None:
        """Append one image and its annotations, each a JSON object as text."""
        self._out.write((",\n" if self.images else "\n").encode() + image.encode())
        if annotations:
            text = ",\n".join(annotations)
            try:
                self._spool.write(((",\n" if self.annotations else "\n") + text).encode())
            except OSError as error:
                raise _no_room(error) from error
        self.images += 1
        self.annotations += len(annotations)

    def close(self, tail: Mapping[str, Any]) -> None:
        """Bring the annotations over and end the file with the keys of `tail`."""
        self._out.write(b'\n],\n"annotations": [')
        try:
            self._spool.seek(0)
        except OSError as error:
            raise _no_room(error) from error
        while block := self._spool.read(COPY_BYTES):
            self._out.write(block)
        self._out.write(b"\n]" + b"".join(_member(key, value) for key, value in tail.items()) + b"\n}\n")


@contextmanager
def open_document(store: Store, key: str, head: Mapping[str, Any], tail: Mapping[str, Any]) -> Iterator[CocoDocument]:
    """Open a COCO file for writing; it appears whole when the block ends, and not at all if it raises.

    head comes before the images and is not empty, tail after the annotations.

    Raises:
        VouchError: The folder for temporary files is full.
        StoreError: The store cannot be written to.
    """
    with store.open_writer(key) as out, _spool() as spool:
        first = b"".join(_member(name, value) for name, value in head.items())
        out.write(b"{" + first.removeprefix(b",") + b',\n"images": [')
        document = CocoDocument(out, spool)
        yield document
        document.close(tail)


class ParquetDocument:
    """Two Parquet files that are being written, a row an image and a row an annotation, with COCO's keys as columns."""

    def __init__(self, images: "_Rows", annotations: "_Rows") -> None:
        """Take what writes the rows."""
        self._images, self._annotations = images, annotations

    def add(self, image: str, annotations: Sequence[str]) -> None:
        """Append one image and its annotations, each a JSON object as text."""
        self._images.add([image])
        # Within a string the quotes would be escaped, so it is the key alone.
        self._annotations.add([text.replace('"segmentation": []', '"segmentation": null') for text in annotations])


@contextmanager
def open_parquet(store: Store, key: str, head: Mapping[str, Any], tail: Mapping[str, Any]) -> Iterator[ParquetDocument]:
    """Open annotations.parquet and images.parquet beside it for writing, see `open_document`.

    head and tail go into the metadata of both, as JSON.

    Raises:
        StoreError: The store cannot be written to.
    """
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in {**head, **tail}.items()}
    with (
        _Rows.open(store, images_key(key), _IMAGES, metadata) as images,
        _Rows.open(store, key, _ANNOTATIONS, metadata) as annotations,
    ):
        yield ParquetDocument(images, annotations)


def images_key(annotations_key: str) -> str:
    """Key of the table of images beside a table of annotations."""
    folder, _, name = annotations_key.rpartition("/")
    return f"{folder}/{name.replace('annotations', 'images')}"


class _Rows:
    """JSON objects that become rows of a Parquet file, a group at a time."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._waiting = io.BytesIO()

    @classmethod
    @contextmanager
    def open(cls, store: Store, key: str, schema: pa.Schema, metadata: Mapping[str, str]) -> Iterator[Self]:
        with (
            store.open_writer(key) as out,
            pq.ParquetWriter(out, schema.with_metadata(metadata), compression="zstd") as writer,
        ):
            rows = cls(writer, schema)
            yield rows
            rows.flush()

    def add(self, objects: Sequence[str]) -> None:
        for text in objects:
            self._waiting.write(text.encode() + b"\n")
        if self._waiting.tell() >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        size = self._waiting.tell()
        if size:
            table = pj.read_json(
                io.BytesIO(self._waiting.getvalue()),
                read_options=pj.ReadOptions(block_size=size, use_threads=False),
                parse_options=pj.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="error"),
            )
            self._writer.write_table(table)
            self._waiting = io.BytesIO()


FORMATS: Final[dict[str, tuple[str, Open]]] = {
    "coco": ("json", open_document),
    "parquet": ("parquet", open_parquet),
}
"""Format -> suffix of its files, and what opens one."""


@contextmanager
def _spool() -> Iterator[IO[bytes]]:
    try:
        file = tempfile.TemporaryFile(buffering=COPY_BYTES)  # noqa: SIM115 - closed below, errors aside
    except OSError as error:
        raise _no_room(error) from error
    try:
        yield file
    finally:
        # Closing a file on a full disk fails again, and would hide the first error.
        with suppress(OSError):
            file.close()


def _member(key: str, value: object) -> bytes:
    return f",\n{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}".encode()


def _no_room(error: OSError) -> VouchError:
    folder = tempfile.gettempdir()
    return VouchError(f"cannot write temporary files in {folder} ({error.strerror}); free some space or set TMPDIR")
