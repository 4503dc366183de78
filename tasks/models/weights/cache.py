"""The folder on this machine that downloaded checkpoints and their hashes are kept in."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """VOUCH_CACHE where it is set, else ~/.cache/vouch; not made here."""
    chosen = os.environ.get("VOUCH_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vouch"
