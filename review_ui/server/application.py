"""FiftyOne's application with the guard around it."""

import os

from starlette.types import ASGIApp

from review_ui.guard.app import Guard
from review_ui.server.seat import MongoSeat
from review_ui.server.settings import ServerSettings
from tasks.store.open import open_store


def application(settings: ServerSettings) -> ASGIApp:
    """Import FiftyOne, which takes seconds, and put the guard around it.

    Args:
        settings: Whose desk, and where the images lie.

    Raises:
        VouchError: The database is away, or there is no such queue.
    """
    import fiftyone.server.app

    from review_ui.plugin.seat import desk

    seat = MongoSeat(os.environ["FIFTYONE_DATABASE_URI"], settings.guard, desk().queue)
    return Guard(fiftyone.server.app.app, settings.guard, seat, open_store(settings.source))
