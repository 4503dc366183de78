"""Writes one COCO file as a stream, images before annotations."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO

from schemas.errors import VouchError
from tasks.store.store import Store

COPY_BYTES = 1 << 20


class CocoDocument:
    """A file that is being written: images go straight to it, annotations wait in a temporary file."""

    def __init__(self, out: BinaryIO, spool: IO[bytes]) -> None:
        """Take the file, its head written already, and the file that annotations wait in."""
        self._out = out
        self._spool = spool
        self.images = 0
        self.annotations = 0

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

    Args:
        store: Where to.
        key: Key of the file.
        head: What comes before the images (info, licences); not empty.
        tail: What comes after the annotations (categories).

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
