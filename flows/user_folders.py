"""Where Vouch and what it starts keep settings, logs and caches of a user whose home folder cannot be written."""

import os
import stat
import tempfile
from collections.abc import MutableMapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from vouch_labels.schemas.errors import UserError

FOLDERS: Final = {
    "XDG_CACHE_HOME": (".cache", "vouch"),
    "XDG_CONFIG_HOME": (".config", ""),
    "XDG_DATA_HOME": (".local/share", "vouch"),
    "XDG_STATE_HOME": (".local/state", "vouch"),
    "PREFECT_HOME": (".prefect", ""),
}
"""The variable that names a folder, where in the home folder it is without, and what of it Vouch writes itself.

matplotlib, torch, Hugging Face and fontconfig heed XDG_CACHE_HOME and XDG_CONFIG_HOME; their children inherit them.
"""
READ: Final = {"HF_HOME": ".cache/huggingface", "PREFECT_PROFILES_PATH": ".prefect/profiles.toml"}
"""What is of use even where it can only be read: models that have been fetched, and which server is the user's."""


@cache
def settle_folders() -> str | None:
    """Name the folders (`name_folders`) for this process and all that it starts, before prefect is imported."""
    return name_folders(os.environ)


def name_folders(environment: MutableMapping[str, str]) -> str | None:
    """Name a folder of our own for everything that a home folder cannot take; what the user has named is kept.

    HOME itself is left alone where it can be read: credentials and "~" in campaigns are looked up there. Returns a line
    for the user, None where nothing was changed; a UserError says that there is no folder of our own either.
    """
    home = _home()
    lacking = [name for name in FOLDERS if not environment.get(name) and not _can_write(home, *FOLDERS[name])]
    if not lacking:
        return None
    own = _own_folder()
    for name in lacking:
        environment[name] = str(own / FOLDERS[name][0])
    if home is not None and os.access(home, os.X_OK):
        for name, place in READ.items():
            if os.access(home / place, os.R_OK):
                environment.setdefault(name, str(home / place))
    else:
        environment["HOME"] = str(own)
    places = "" if len(lacking) == len(FOLDERS) else f" ({', '.join(FOLDERS[name][0] for name in lacking)})"
    which = "there is no home folder" if home is None else f"the home folder {home} cannot be written{places}"
    return f"{which}; settings, logs and caches are in {own} (HOME names another folder)"


def _home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no user of this number
        return None
    return home if home.is_absolute() else None


def _can_write(home: Path | None, place: str, part: str) -> bool:
    """Whether a folder in the home folder can be written, or made; a home folder itself is not made."""
    if home is None:
        return False
    wanted = home / place / part
    for folder in (wanted, *wanted.parents):
        if os.access(folder, os.F_OK):
            return folder.is_relative_to(home) and os.access(folder, os.W_OK | os.X_OK)
    return False


def _own_folder() -> Path:
    """A folder for temporary files that is this user's alone and the same the next time."""
    try:
        folder = Path(tempfile.gettempdir()) / f"vouch-home-{os.geteuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        about = folder.lstat()
    except OSError as error:
        raise UserError(
            f"neither the home folder nor one for temporary files can be written ({error.strerror or error}); "
            "set HOME or TMPDIR to a folder that can"
        ) from error
    # Everybody may make folders there: one that others can write would let them choose what we read.
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise UserError(f"{folder} is not this user's alone; remove it, or set HOME to a folder that can be written")
    return folder
