"""FiftyOne's application with the guard around it."""

from starlette.types import ASGIApp

from review_ui.guard.app import Guard
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
    from review_ui.server.seat import DeskSeat

    return Guard(fiftyone.server.app.app, settings.guard, DeskSeat(desk()), open_store(settings.source))
