"""FiftyOne in the tests' own process: it knows one database for all of it."""

import sys
import uuid
from importlib import import_module
from pathlib import Path

import pytest

from vouch_labels.review_ui.server.process import server_environment


def database_of_fiftyone(mongo: str, home: Path) -> str:
    """Import FiftyOne with a server's address, if that has not happened yet; gives the name of its database.

    Args:
        mongo: mongodb:// address.
        home: Folder for what it keeps in people's home.
    """
    if "fiftyone" not in sys.modules:
        outer = {"FIFTYONE_DATABASE_NAME": f"test-{uuid.uuid4().hex}", "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server_environment(outer, mongo, "", "", 1).items():
                patch.setenv(name, value)
            import_module("fiftyone")  # it reads the environment now
    import fiftyone as fo

    database: str = fo.config.database_name
    return database
