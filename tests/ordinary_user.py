"""Lets root's tests be somebody without rights, as everybody else's are anyway."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def folder_of_an_ordinary_user() -> Iterator[Path]:
    """Make a folder and be its owner, who is not root, inside the block; no other folder's rights are touched."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)  # os.access asks for the real user
        try:
            if not os.access(name, os.X_OK):
                pytest.skip("the folder for temporary files is root's alone")
            yield Path(name)
        finally:
            os.seteuid(0)
            os.setresuid(0, 0, 0)
