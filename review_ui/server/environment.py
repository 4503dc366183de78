"""The environment of a reviewer's server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import review_ui

PLUGINS: Final = Path(review_ui.__file__).parent / "plugin"
"""Where FiftyOne finds our plugin, and no other."""

_SETTINGS: Final = {
    "FIFTYONE_DO_NOT_TRACK": "true",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    # It is a server, and starts no services of its own.
    "FIFTYONE_SERVER": "1",
    "FIFTYONE_DISABLE_SERVICES": "1",
    # Our database is a single server, which tells of no changes; FiftyOne would ask it all the time.
    "FIFTYONE_EXECUTION_STORE_NOTIFICATION_SERVICE_DISABLED": "true",
    # Nothing is answered to pages of other sites.
    "FIFTYONE_ALLOWED_ORIGINS": "",
    # Plugins do not change while it runs; without this every request of an operator loads them all again.
    "FIFTYONE_PLUGINS_CACHE_ENABLED": "true",
    "PYTHONUNBUFFERED": "1",
}
_LEFT_OUT: Final = ("FIFTYONE_", "VOUCH_REVIEW_", "VOUCH_MONGODB_URI")
"""The user's own FiftyOne has its own settings; tokens and passwords are not handed on."""
_KEPT: Final = ("FIFTYONE_DATABASE_NAME",)


def server_environment(outer: Mapping[str, str], uri: str, queue: str, reviewer: str, batch: int) -> dict[str, str]:
    """Make the environment of a reviewer's server out of our own.

    Args:
        outer: Ours.
        uri: mongodb:// address, perhaps with a password.
        queue: Id of the queue.
        reviewer: Who works there; FiftyOne itself knows no users.
        batch: Items that are taken at a time.
    """
    kept = {name: value for name, value in outer.items() if name in _KEPT or not name.startswith(_LEFT_OUT)}
    return {
        **kept,
        **_SETTINGS,
        "FIFTYONE_DATABASE_URI": uri,
        "FIFTYONE_PLUGINS_DIR": str(PLUGINS),
        "VOUCH_REVIEW_QUEUE": queue,
        "VOUCH_REVIEW_REVIEWER": reviewer,
        "VOUCH_REVIEW_BATCH": str(batch),
    }
