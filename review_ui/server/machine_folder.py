"""Where a machine keeps what belongs to a queue: the embedded database, and who uses it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_data_path

from schemas.errors import UserError


def queue_folder(queue: str) -> Path:
    """The folder of a queue in the user's data folder; not created."""
    return user_data_path("vouch") / "review" / queue


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock alone, waiting for it; the system gives it back even when we are killed."""
    with open_lock(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_lock(path: Path) -> BinaryIO:
    """Open a file to lock; created when absent.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        raise UserError(f"cannot write {path.parent}: {reason}; mend it, or set XDG_DATA_HOME elsewhere") from error


def try_lock(file: BinaryIO) -> bool:
    """Take a file's lock alone if nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share_lock(file: BinaryIO) -> None:
    """Take a file's lock together with others."""
    fcntl.flock(file, fcntl.LOCK_SH)
