"""The log file: everything that other packages say, and the tracebacks; never a secret."""

import logging
import os
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 5 * 2**20
KEPT: Final = 3
"""Older files that are kept, as vouch.log.1 and so on."""

_SECRETS: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_DATABASE_PASSWORD",
    "VOUCH_MONGODB_URI",
    "VOUCH_REVIEW_TOKEN",
)
_IN_ADDRESS: Final = re.compile(r"(?<=://)[^/@\s]+@|(?<=\w)\?[^\s\"'<>]*(?i:signature|token|secret|key)=[^\s\"'<>]*")


def log_path() -> Path:
    """VOUCH_LOG where it is set, else vouch/vouch.log in XDG_STATE_HOME (~/.local/state)."""
    chosen = os.environ.get("VOUCH_LOG")
    if chosen:
        return Path(chosen).expanduser()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "vouch" / "vouch.log"


def start_log() -> Path | None:
    """Send the root logger, from INFO up, and Python's warnings to the log file.

    Must run before prefect is imported: it leaves a root logger alone that has a handler already.

    Returns:
        The file; None where none can be written, which is no reason not to work.
    """
    path = log_path()
    handler: logging.Handler = logging.NullHandler()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=False)
    except OSError:
        path = None  # type: ignore[assignment]  # no file, said by the return type
    handler.setFormatter(_Redacting("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "of_vouch", False)]:
        root.removeHandler(old)
        old.close()
    handler.of_vouch = True  # type: ignore[attr-defined]  # so that a second start replaces it
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # One line a request, thousands a run.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return path


class _Redacting(logging.Formatter):
    """Blots out what must not lie in a file, in messages and in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        text = _IN_ADDRESS.sub("", super().format(record))
        for name in _SECRETS:
            secret = os.environ.get(name)
            if secret and len(secret) > 5:
                text = text.replace(secret, f"<{name}>")
        return text
