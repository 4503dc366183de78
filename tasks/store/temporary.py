"""Names of the files that a folder store is still writing, and removal of those that dead writers left."""

import contextlib
import os
import secrets
import time
from pathlib import Path

from tasks.store.process import ProcessId, is_alive, this_process

PREFIX = ".vouch-"
SUFFIX = ".tmp"
FOREIGN_AGE_S = 24 * 3600.0
"""Files of another machine's writers are left alone for this long."""


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
        with contextlib.suppress(OSError):
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
