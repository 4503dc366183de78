"""The folder on this machine that downloaded checkpoints and their hashes are kept in."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """VOUCH_CACHE where it is set, else vouch in XDG_CACHE_HOME (~/.cache); not made here."""
    chosen = os.environ.get("VOUCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "vouch"
