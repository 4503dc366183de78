"""Implements the store on a local folder: atomic puts through temporary files, those of dead writers removed."""

import errno
import logging
import os
import secrets
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vouch_labels.schemas.errors import ObjectChangedError, ObjectMissingError, StoreAccessError, StoreError
from vouch_labels.tasks.store.lock import ProcessId, is_alive, this_process
from vouch_labels.tasks.store.private import private, private_folder
from vouch_labels.tasks.store.store import Blob, ObjectInfo

logger = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

DANGLING = "links that lead nowhere"
"""The kind under which a listing counts them."""

PRIVATE = ("reviews",)
"""Folders of a store that are their owner's alone: they hold people's answers."""
PREFIX = ".vouch-"
SUFFIX = ".tmp"
FOREIGN_AGE_S = 24 * 3600.0
"""Files of another machine's writers are left alone for this long."""


class LocalStore:
    """The files below one folder, as objects.

    Links to files and folders are followed (a folder that leads back to itself is not), since a data set is often
    put together from links; a key that names a file outside the folder by itself ("../x") is refused. Version tags
    are made of the time of change and the size.
    """

    def __init__(self, root: Path) -> None:
        """Take the folder; it is created by the first write."""
        self.root = root.absolute()
        self.uri = str(self.root)
        self._swept: set[Path] = set()

    def list(self, prefix: str = "", left_out: Counter[str] | None = None) -> Iterator[ObjectInfo]:
        """Yield the files under `prefix` in byte order; names of one folder are held at a time, and its parents'.

        Left out are links that lead nowhere, names that are no UTF-8, and what is neither file nor folder.
        """
        missed = Counter[str]() if left_out is None else left_out
        folder, _, stem = prefix.rpartition("/")
        if folder and not _is_key(folder):
            return
        top = self.root / folder if folder else self.root
        levels = [_Level.open(top, f"{folder}/" if folder else "", stem, missed)]
        while levels:
            level = levels[-1]
            if not level.names:
                levels.pop()
                continue
            # Bytes sort as the keys do only when a folder's name carries its slash.
            name = os.fsdecode(level.names.pop())
            path, key = level.path / name, level.base + name
            if name.endswith("/"):
                below = _Level.open(path, key, "", missed)
                if all(below.identity != above.identity for above in levels):
                    levels.append(below)
            elif (info := _stat(path, key)) is not None:
                yield info
            elif path.is_symlink():
                missed[DANGLING] += 1
            elif path.exists():
                missed["neither file nor folder"] += 1

    def get(self, key: str) -> Blob:
        """Read a file; the version is taken after reading, so that a change while reading shows."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                data = file.read()
                return Blob(data, _etag(os.fstat(file.fileno())))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissingError(f"{self.uri} has no object {key!r}") from None
        except OSError as error:
            raise _translated(error, f"read {path}") from error

    def get_range(self, key: str, start: int, size: int, etag: str) -> bytes:
        """Read a part of a file; the version is taken after reading, as by `get`."""
        with self.open_reader(key) as file:
            try:
                file.seek(start)
                data = file.read(size)
                found = _etag(os.fstat(file.fileno()))
            except OSError as error:
                raise _translated(error, f"read {self._path(key)}") from error
        if found != etag or len(data) != size:
            raise ObjectChangedError(f"{self.uri}/{key} has changed while it was read")
        return data

    @contextmanager
    def open_reader(self, key: str) -> Iterator[BinaryIO]:
        """Open the file."""
        path = self._path(key)
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissingError(f"{self.uri} has no object {key!r}") from None
        except OSError as error:
            raise _translated(error, f"read {path}") from error
        with file:
            yield file

    def stat(self, key: str) -> ObjectInfo | None:
        """Look a file up; None for a folder as well."""
        return _stat(self._path(key), key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a temporary file beside the target, sync it, and rename (or link, for `if_absent`) it."""
        target = self._path(key)
        if if_absent and _stat(target, key) is not None:
            return False
        with self._temporary(target) as file:
            file.write(data)
            return _publish(file, target, if_absent=if_absent)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """Write a temporary file beside the target; rename it when the block ends well."""
        target = self._path(key)
        with self._temporary(target) as file:
            yield file
            _publish(file, target, if_absent=False)

    def delete(self, key: str) -> None:
        """Remove a file."""
        path = self._path(key)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _translated(error, f"delete {path}") from error

    def local_path(self, key: str) -> Path:
        """Join the key to the folder."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        if not _is_key(key):
            raise StoreError(f"{key!r} does not name a file below {self.uri}: keys are relative, without '..' or '//'")
        return self.root / key

    @contextmanager
    def _temporary(self, target: Path) -> Iterator[BinaryIO]:
        path = target.parent / temporary_name()
        try:
            is_private = target.relative_to(self.root).parts[0] in PRIVATE
            self._prepare(target.parent, is_private)
            file = open(path, "xb", opener=private if is_private else None)  # noqa: SIM115 - closed by the block below
        except OSError as error:
            raise _translated(error, f"write {target}") from error
        try:
            with file:
                yield file
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            # An error that names another file is the block's own, not this store's.
            if error.filename is None or Path(error.filename).is_relative_to(self.root):
                raise _translated(error, f"write {target}") from error
            raise
        finally:
            with suppress(OSError):
                path.unlink()

    def _prepare(self, folder: Path, is_private: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in self._swept:
            if is_private and folder != self.root:
                private_folder(folder)
            sweep(folder)
            self._swept.add(folder)


class _Level(NamedTuple):
    """A folder that is being listed."""

    path: Path
    base: str
    names: list[bytes]
    """Greatest first, so that the next one is popped from the end."""
    identity: tuple[int, int]

    @classmethod
    def open(cls, path: Path, base: str, stem: str, missed: Counter[str]) -> "_Level":
        names: list[bytes] = []
        start = os.fsencode(stem)
        try:
            about = path.stat()
            with os.scandir(os.fsencode(path)) as entries:
                for entry in entries:
                    name = entry.name + b"/" if _is_folder(entry) else entry.name
                    if not name.startswith(start):
                        continue
                    if _is_object(name, path, missed):
                        names.append(name)
        except (FileNotFoundError, NotADirectoryError):
            return cls(path, base, [], (0, 0))
        except OSError as error:
            raise _translated(error, f"list {path}") from error
        names.sort(reverse=True)
        return cls(path, base, names, (about.st_dev, about.st_ino))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_object(name: bytes, folder: Path, missed: Counter[str]) -> bool:
    try:
        return not is_temporary(name.decode())
    except UnicodeDecodeError:
        logger.warning("left out: the name of %r in %s is not UTF-8; rename it", name, folder)
        missed["name not in UTF-8"] += 1
        return False


def _is_key(key: str) -> bool:
    return "\0" not in key and not any(part in {"", ".", ".."} for part in key.split("/"))


def _stat(path: Path, key: str) -> ObjectInfo | None:
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise _translated(error, f"look up {path}") from error
    return ObjectInfo(key, _etag(about), about.st_size) if stat.S_ISREG(about.st_mode) else None


def _etag(about: os.stat_result) -> str:
    return f"{about.st_mtime_ns:x}-{about.st_size:x}"


def _publish(file: BinaryIO, target: Path, *, if_absent: bool) -> bool:
    file.flush()
    os.fsync(file.fileno())
    if if_absent:
        try:
            os.link(file.name, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            if target.exists():
                return False
            Path(file.name).replace(target)
    else:
        Path(file.name).replace(target)
    _sync_folder(target.parent)
    return True


def _sync_folder(folder: Path) -> None:
    # Some file systems cannot sync a folder; the rename is atomic all the same.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _translated(error: OSError, what: str) -> StoreError | StoreAccessError:
    reason = error.strerror or type(error).__name__
    if error.errno in FULL:
        return StoreError(f"cannot {what}: {reason.lower()}; free some space and run again, finished work is kept")
    if error.errno in REFUSED:
        return StoreAccessError(f"cannot {what}: {reason.lower()}; check the owner and mode of the folder")
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return StoreAccessError(f"cannot {what}: a file stands where a folder is needed; move it or choose another")
    if isinstance(error, FileNotFoundError):
        return StoreAccessError(f"cannot {what}: the folder cannot be created; check the path")
    return StoreError(f"cannot {what}: {reason.lower()}")


def temporary_name() -> str:
    """Name a new file that says which process writes it; short, so that it fits wherever the real name does."""
    place, pid, started = this_process()
    return f"{PREFIX}{place}-{pid}-{started}-{secrets.token_hex(4)}{SUFFIX}"


def is_temporary(name: str) -> bool:
    """Say whether a file of this name is still being written, or was given up: it is not an object."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, not in those below it."""
    with os.scandir(folder) as entries:
        stale = [entry.path for entry in entries if is_temporary(entry.name) and _is_abandoned(entry)]
    for path in stale:
        # Another process may sweep at the same time, or the folder may not be ours to clean.
        with suppress(OSError):
            Path(path).unlink()


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        place, pid, started, _ = entry.name[len(PREFIX) : -len(SUFFIX)].split("-")
        alive = is_alive(ProcessId(place, int(pid), started))
        if alive is None:
            return time.time() - entry.stat().st_mtime > FOREIGN_AGE_S
    except (ValueError, OSError):
        return False
    return not alive
