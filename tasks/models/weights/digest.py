"""SHA-256 of a large file, computed once as long as the file stays the same."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from schemas.errors import CheckpointError
from tasks.models.weights.cache import cache_folder


def sha256_of(path: Path) -> str:
    """Hex of SHA-256 over a file's bytes.

    The answer is remembered in the cache folder under the file's full path, size and modification time, so that a
    nightly run does not read gigabytes again. A cache that cannot be written only costs time.

    Args:
        path: An existing file.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        path = path.resolve()
        stat = path.stat()
        now = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        note = cache_folder() / "sha256" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
        known = _read(note)
        if known is not None and {name: known.get(name) for name in now} == now:
            return str(known["sha256"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; check its rights") from error
    with contextlib.suppress(OSError):
        _write(note, {**now, "sha256": digest})
    return digest


def _read(note: Path) -> dict[str, object] | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("sha256"), str) else None


def _write(note: Path, record: dict[str, object]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=note.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file)
        Path(temporary).replace(note)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
