"""Reads an object of a store as a seekable file by ranges, without downloading the rest of it."""

import io
from typing import Final

from vouch_labels.schemas.errors import ContainerError, VouchError
from vouch_labels.tasks.store.store import ObjectInfo, Store

FIRST: Final = 16 << 10
"""Bytes that are read at a place far from the last one."""
MOST_AHEAD: Final = 4 << 20
"""Bytes that are read at a time where reads follow each other."""
NEAR: Final = 1 << 20
"""Bytes that are read with the rest rather than asked for around them: a request takes as long as a megabyte does."""
FIRST_LOCAL: Final = 4 << 10
MOST_READ: Final = 64 << 20
"""Bytes of one read: headers that claim more are damaged, or made to fill the memory."""


class RangeFile(io.RawIOBase):
    """One version of an object, as a file that is read through one buffer. For one thread at a time."""

    def __init__(self, store: Store, info: ObjectInfo, most: int = MOST_READ) -> None:
        """Take an object as it was listed; nothing is read yet. A read of more than `most` bytes is refused."""
        super().__init__()
        self._store, self._info, self._most = store, info, most
        is_local = store.local_path(info.key) is not None
        self._first, self._near = (FIRST_LOCAL, 0) if is_local else (FIRST, NEAR)
        self._at = self._start = 0
        self._ahead = self._first
        self._data = b""
        self.error: VouchError | None = None
        """What the store raised, for callers whose library makes another error of it."""

    def readable(self) -> bool:
        """It is read only."""
        return True

    def seekable(self) -> bool:
        """Any place is as near as the other."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, fewer at the end alone.

        Raises:
            ContainerError: More is asked for than one read may take.
            StoreError: As `Store.get_range`.
        """
        end = self._info.size if size is None or size < 0 else min(self._at + size, self._info.size)
        if end <= self._at:
            return b""
        if end - self._at > self._most:
            raise ContainerError(f"damaged: a part of it claims {(end - self._at) / 1e6:,.0f} MB")
        if not (self._start <= self._at and end <= self._start + len(self._data)):
            self._fetch(end)
        begin = self._at - self._start
        self._at = end
        return self._data[begin : end - self._start]

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override] # what callers give
        """Fill a buffer as far as the file goes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _fetch(self, end: int) -> None:
        gap = self._at - (self._start + len(self._data))
        follows = self._data and self._at >= self._start and gap <= self._near
        self._ahead = min(2 * self._ahead, MOST_AHEAD) if follows else self._first
        upto = min(max(end, self._at + self._ahead), self._info.size)
        self._data = b""  # not two at once
        try:
            self._data = self._store.get_range(self._info.key, self._at, upto - self._at, self._info.etag)
        except VouchError as error:
            self.error = error
            raise
        self._start = self._at
