"""Shows the images inside tar, Parquet and video files as objects of the source, each read by its range.

A key `shards/0001.tar/a.jpg` is the file a.jpg in the object shards/0001.tar, `train.parquet/000012.jpg` a row,
`clip.mp4/00-00-12.500.jpg` a frame. What a container has inside is read once for each version of it, and kept in the
workspace.
"""

import heapq
import io
import logging
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final

from vouch_labels.schemas.campaign import VIDEO_SUFFIXES, Location, Source, VideoOptions
from vouch_labels.schemas.errors import (
    ContainerError,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    VouchError,
)
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.store.cursor import MOST_HELD, Cursor
from vouch_labels.tasks.store.members import Member, Members, from_bytes, to_bytes
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.parquet import read_parquet, rows_of
from vouch_labels.tasks.store.store import Blob, ObjectInfo, Store
from vouch_labels.tasks.store.tar import read_tar
from vouch_labels.tasks.store.video import frames_of, read_video

logger = logging.getLogger(__name__)

FOLDER: Final = "containers/"
"""Folder of the workspace with what containers have inside."""
_VIDEO: Final = tuple(f".{suffix}" for suffix in VIDEO_SUFFIXES)
_PLAIN: Final = (".tar", ".parquet")
COMPRESSED: Final = "compressed tar (unpack it: gunzip ...)"
"""The kind under which they are counted: no image of one can be read by itself."""
COMPRESSED_SUFFIXES: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_VERSION: Final = 1
"""Raised whenever the same container could get other members."""
_FRAME: Final = re.compile(r"(\d{2,})-(\d\d)-(\d\d\.\d{3})\.jpg")
_WITHIN: Final = re.compile(rf"(?:{'|'.join(map(re.escape, (*_PLAIN, *_VIDEO)))})(?=/)", re.IGNORECASE)
_MOST_KNOWN: Final = 128 << 20
"""Bytes of members that a process keeps."""
_THREADS: Final = 16
"""Containers that are looked into at the same time."""
_AHEAD: Final = 64
"""Containers that are looked into before the listing comes to them."""
_LOOKED_AHEAD: Final = 10_000
_TRIES: Final = 3
MOST_CURSORS: Final = 8
"""Parquet files and videos that are read through at the same time: threads go ahead into the next ones."""


_Waiting = tuple[str, int, ObjectInfo, "Future[tuple[ObjectInfo, Members | None]] | None"]


def container_in(key: str) -> str:
    """The name of the first container that a key leads into, if it is one and no folder; empty: into none."""
    found = _WITHIN.search(key)
    return key[: found.end()] if found else ""


def open_source(source: Source, workspace: Location | None = None, *, keep: bool = True) -> "SourceStore":
    """Open where the images lie; nothing is read yet.

    Args:
        source: The campaign's source.
        workspace: Where what containers have inside is looked up, instead of reading it again; None: nowhere.
        keep: Also write it there.

    Raises:
        UserError: As open_store.
    """
    return SourceStore(open_store(source), source, None if workspace is None else open_store(workspace), keep=keep)


class SourceStore:
    """A store whose containers' members are objects as well; `list` shows the containers, `expand` what they hold.

    The tag of a member is made of its container's and its place in it. It is only read: nothing is ever written by a
    name that stands in a container.
    """

    def __init__(self, store: Store, source: Source, workspace: Store | None = None, *, keep: bool = True) -> None:
        """Take the store itself, the source's settings, and the workspace that keeps what containers have inside."""
        self.store, self.uri = store, store.uri
        self._source, self._workspace, self._keep = source, workspace, keep
        self._suffixes = _PLAIN if source.video is None else (*_PLAIN, *_VIDEO)
        self._lock = threading.Lock()
        self._containers: dict[str, ObjectInfo | None] = {}
        self.most_kept = MOST_HELD
        """Bytes that each of `MOST_CURSORS` readers of Parquet files and videos may keep for threads that come late."""
        self._cursors: OrderedDict[tuple[str, str], Cursor] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}

    def list(self, prefix: str = "", left_out: Counter[str] | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects as the store has them: of containers the file."""
        return self.store.list(prefix, left_out)

    def is_container(self, key: str) -> bool:
        """Whether the name is that of a file that is looked into: a tar or Parquet file, with source.video a video."""
        return key.lower().endswith(self._suffixes)

    def expand(self, infos: Iterable[ObjectInfo], left_out: Counter[str]) -> Iterator[ObjectInfo]:
        """Put the members of containers in their place, in the order of all keys.

        A container that cannot be read, or not to its end, stands for itself as well, with a size of 0: to get it says
        why. Several are looked into at once; plain objects take no longer for it.

        Args:
            infos: Objects in the order of their keys.
            left_out: Counts members that stand for no file.

        Raises:
            StoreAccessError: The store cannot be read.
            StoreError: It fails for another reason.
        """
        # Those behind a container whose keys come before its members' ("a.tar-1" before "a.tar/x") go first.
        waiting: list[_Waiting] = []
        futures, number = 0, 0
        with ThreadPoolExecutor(_THREADS, "containers") as pool:
            try:
                for info in infos:
                    while waiting and (
                        (waiting[0][3] is None and waiting[0][0] <= info.key)
                        or futures >= _AHEAD
                        or len(waiting) >= _LOOKED_AHEAD
                    ):
                        _, _, first, future = heapq.heappop(waiting)
                        futures -= future is not None
                        yield from self._resolved(first, future, left_out)
                    number += 1
                    if self.is_container(info.key):
                        futures += 1
                        future = pool.submit(self._looked_into, info)
                        heapq.heappush(waiting, (f"{info.key}/", number, info, future))
                    elif waiting:
                        heapq.heappush(waiting, (info.key, number, info, None))
                    else:
                        yield info
                while waiting:
                    _, _, first, future = heapq.heappop(waiting)
                    yield from self._resolved(first, future, left_out)
            finally:
                for *_, future in waiting:
                    if future is not None:
                        future.cancel()

    def _looked_into(self, info: ObjectInfo) -> tuple[ObjectInfo, Members | None]:
        """The members of a container, and its version that has them; None: they cannot be listed."""
        for _ in range(_TRIES):
            try:
                return info, self._members(info)
            except (ObjectRefusedError, ObjectArchivedError):
                return info, None
            except StoreAccessError:
                if self.local_path("x") is None:
                    raise
                return info, None
            except ObjectChangedError:
                info = self.store.stat(info.key) or info
            except ObjectMissingError:
                break
        return info, None

    def _resolved(
        self, info: ObjectInfo, future: "Future[tuple[ObjectInfo, Members | None]] | None", left_out: Counter[str]
    ) -> Iterator[ObjectInfo]:
        if future is None:
            yield info
            return
        info, members = future.result()
        if members is None or members.damaged:
            yield ObjectInfo(info.key, info.etag, 0)
        if members is not None:
            left_out.update(members.left_out)
            for member in members:
                yield _info(info, member, members)

    def get(self, key: str) -> Blob:
        """Read an object, or the range of a member.

        Raises:
            ObjectMissingError: There is none of this key.
            ContainerError: It cannot be read, or is a container itself.
        """
        if self.is_container(key):
            raise ContainerError(self._why(key))
        info = self._container_of(key)
        if info is None:
            return self.store.get(key)
        for attempt in range(_TRIES):
            name = key[len(info.key) + 1 :]
            try:
                members = self._members(info)
                row = members.find(name)
                if row >= 0:
                    member = members.row(row)
                    return Blob(self._content(info, members, row), _info(info, member, members).etag)
            except ObjectChangedError:
                if attempt + 1 == _TRIES:
                    raise
            # What was known of the container may be of an older version.
            self._forget(info.key)
            now = self._container(info.key)
            if now is None or now == info:
                break
            info = now
        raise ObjectMissingError(f"{self.uri} has no object {key!r}")

    def get_range(self, key: str, start: int, size: int, etag: str) -> bytes:
        """Read a part of an object; of a member, a part of what `get` gives."""
        if self._container_of(key) is None:
            return self.store.get_range(key, start, size, etag)
        blob = self.get(key)
        if blob.etag != etag or len(blob.data) < start + size:
            raise ObjectChangedError(f"{self.uri}/{key} has changed while it was read")
        return blob.data[start : start + size]

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Read an object as a file; a member is held in memory."""
        if self._container_of(key) is None:
            return self.store.open_reader(key)
        return nullcontext(io.BytesIO(self.get(key).data))

    def stat(self, key: str) -> ObjectInfo | None:
        """Look an object up; the size of a member is -1 where it shows only by reading."""
        info = self._container_of(key)
        if info is None:
            return self.store.stat(key)
        self._forget(info.key)
        info = self._container(info.key)
        if info is None:
            return None
        members = self._members(info)
        row = members.find(key[len(info.key) + 1 :])
        return None if row < 0 else _info(info, members.row(row), members)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object of the store itself."""
        return self.store.put(key, data, if_absent=if_absent)

    def open_writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Write an object of the store itself."""
        return self.store.open_writer(key)

    def delete(self, key: str) -> None:
        """Remove an object of the store itself."""
        self.store.delete(key)

    def local_path(self, key: str) -> Path | None:
        """Where an object lies on this machine's disk; None for a member, and for S3."""
        return None if self._container_of(key) is not None else self.store.local_path(key)

    def is_member(self, key: str) -> bool:
        """Whether a key leads into a container."""
        return self._container_of(key) is not None

    def _why(self, key: str) -> str:
        info = self.store.stat(key)
        if info is None:
            raise ObjectMissingError(f"{self.uri} has no object {key!r}")
        return self._members(info).damaged or "no image: the images inside have keys of their own"

    def _container_of(self, key: str) -> ObjectInfo | None:
        """The container that a key leads into; None: it is a plain object, in a folder that is called so at most."""
        for found in _WITHIN.finditer(key):
            info = self._container(key[: found.end()])
            if info is not None:
                return info
        return None

    def _container(self, key: str) -> ObjectInfo | None:
        if key not in self._containers:
            self._containers[key] = self.store.stat(key)
        return self._containers[key]

    def _forget(self, key: str) -> None:
        self._containers.pop(key, None)

    def _content(self, info: ObjectInfo, members: Members, row: int) -> bytes:
        if not (_is_parquet(info.key) or is_video(info.key)):
            member = members.row(row)
            return self.store.get_range(info.key, member.place, member.size, info.etag)
        with self._lock:
            place = (info.key, info.etag)
            cursor = self._cursors.pop(place, None) or self._cursor(info, members)
            self._cursors[place] = cursor
            while len(self._cursors) > MOST_CURSORS:
                self._cursors.popitem(last=False)
        return cursor.item(row)

    @property
    def _video(self) -> VideoOptions:
        # Frames that were labelled are still shown where no more are taken.
        return self._source.video or VideoOptions()

    def _cursor(self, info: ObjectInfo, members: Members) -> Cursor:
        if _is_parquet(info.key):
            return rows_of(self.store, info, members.about, self.most_kept)
        return frames_of(self.store, info, members, self._source.max_pixels, self.most_kept)

    def _members(self, info: ObjectInfo) -> Members:
        """What a version of a container has inside, read at most once at the same time."""
        place = self._kept_as(info)
        with self._lock:
            lock = self._reading.setdefault(place, threading.Lock())
        with lock:
            members = _known.get(place)
            if members is None:
                members = self._kept(info) or self._read(info)
                _known.put(place, members)
        return members

    def _read(self, info: ObjectInfo) -> Members:
        if _is_parquet(info.key):
            members = read_parquet(self.store, info, self._source.image_column)
        elif is_video(info.key):
            members = read_video(self.store, info, self._video, self._source.max_pixels)
        else:
            members = read_tar(self.store, info)
        if self._workspace is not None and self._keep:
            try:
                self._workspace.put(self._kept_as(info), to_bytes(members))
            except VouchError as error:
                # It is only read again by the next run.
                logger.warning("what is inside %s could not be kept: %s", info.key, error)
        return members

    def _kept(self, info: ObjectInfo) -> Members | None:
        if self._workspace is None:
            return None
        try:
            return from_bytes(self._workspace.get(self._kept_as(info)).data)
        except VouchError:
            return None

    def _kept_as(self, info: ObjectInfo) -> str:
        endpoint = self._source.s3.endpoint_url if "://" in self.uri else None
        how: tuple[str | float | None, ...] = ()
        if _is_parquet(info.key):
            how = (self._source.image_column,)
        elif is_video(info.key):
            video = self._video
            how = (video.frames_per_second, video.scene_change, self._source.max_pixels)
        return f"{FOLDER}{fingerprint(_VERSION, self.uri, endpoint, *info, *how)}.parquet"


class _Known:
    """Members that this process has read lately, by a bound of bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Members] = OrderedDict()
        self._bytes = 0

    def get(self, place: str) -> Members | None:
        with self._lock:
            members = self._found.get(place)
            if members is not None:
                self._found.move_to_end(place)
            return members

    def put(self, place: str, members: Members) -> None:
        with self._lock:
            if place not in self._found:
                self._found[place] = members
                self._bytes += members.table.nbytes
            while self._bytes > _MOST_KNOWN and len(self._found) > 1:
                self._bytes -= self._found.popitem(last=False)[1].table.nbytes


_known: Final = _Known()


def _info(container: ObjectInfo, member: Member, members: Members) -> ObjectInfo:
    # Another column of the same row is another image.
    column = members.about.get("column", "")
    tag = f"{container.etag}@{member.place:x}{column and '-'}{column}"
    return ObjectInfo(f"{container.key}/{member.name}", tag, member.size)


def is_video(key: str) -> bool:
    """Whether the name is that of a video."""
    return key.lower().endswith(_VIDEO)


def frame_of(key: str) -> tuple[str, float] | None:
    """The key of the video that an image is a frame of, and its time in seconds; None: it is none."""
    video, _, name = key.rpartition("/")
    found = _FRAME.fullmatch(name)
    if found is None or not is_video(video):
        return None
    hours, minutes, seconds = found.groups()
    return video, round(3600 * int(hours) + 60 * int(minutes) + float(seconds), 3)


def _is_parquet(key: str) -> bool:
    return key.lower().endswith(".parquet")
