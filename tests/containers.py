"""Makes tar, Parquet and video files with images inside, for tests, and counts what is read of them."""

import io
import tarfile
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vouch_labels.tasks.store.store import Store

WIDTH, HEIGHT = 96, 64
"""Pixels of a video."""
STEP = 2
"""Grey levels from one frame of a video to the next."""


def tar_of(members: dict[str, bytes], format: int = tarfile.PAX_FORMAT, more: Any = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if more is not None:
            more(tar)
    return file.getvalue()


def parquet_of(columns: dict[str, Any], metadata: dict[str, str] | None = None, **how: Any) -> bytes:
    file = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, file, **how)
    return file.getvalue()


def hugging(count: int, size: int = 1000, names: bool = True) -> list[dict[str, Any]]:
    """Rows as the package datasets writes a column of type Image."""
    return [
        {"bytes": number.to_bytes(4) * (size // 4), "path": f"some/{number}.jpg" if names else None}
        for number in range(count)
    ]


class Counting:
    """A store that counts the bytes and the requests that ranges take."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ranges: list[tuple[str, int, int]] = []
        self.gets: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str) -> Any:
        self.gets.append(key)
        return self._store.get(key)

    def get_range(self, key: str, start: int, size: int, etag: str) -> bytes:
        self.ranges.append((key, start, size))
        return self._store.get_range(key, start, size, etag)

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.ranges)


def grey(number: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), number * STEP, np.uint8)


def video_of(
    count: int,
    form: str = "mp4",
    codec: str = "libx264",
    rate: int = 5,
    gop: int = 10,
    picture: Callable[[int], np.ndarray] = grey,
    **options: str,
) -> bytes:
    """A video whose frame says which it is, by its grey."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", gop
        stream.bit_rate = 2_000_000
        for number in range(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()
