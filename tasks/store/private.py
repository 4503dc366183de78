"""Makes files and folders that hold people's work, such as answers and logs: only their owner may read them."""

import os
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def private(path: str, flags: int) -> int:
    """Open a file as `open` does, whose opener this is; a new one is its owner's alone."""
    return os.open(path, flags, FILE_MODE)


def private_folder(folder: Path) -> None:
    """Make a folder that is its owner's alone, and those above it; one that is there and ours becomes so.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    # Another owner's is theirs to open or close.
    with suppress(OSError):
        folder.chmod(FOLDER_MODE)


class PrivateLog(RotatingFileHandler):
    """A log that is rotated as it grows, also while it is written to, and read by its owner alone."""

    def _open(self) -> TextIOWrapper:
        with suppress(OSError):
            Path(self.baseFilename).chmod(FILE_MODE)
        descriptor = private(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding=self.encoding, errors=self.errors)
