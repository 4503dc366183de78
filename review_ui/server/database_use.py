"""The database of a campaign's review: the embedded one, or the user's own."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from review_ui.queue.fill import queue_id
from review_ui.server.machine_folder import queue_folder
from review_ui.server.shared_database import SharedDatabase
from schemas.campaign import EMBEDDED, Campaign
from schemas.errors import UserError

VARIABLE: Final = "VOUCH_MONGODB_URI"


@dataclass(frozen=True)
class DatabaseUse:
    """A database that can be used now."""

    uri: str
    """mongodb:// address, perhaps with a password: never print it."""
    revive: Callable[[], bool]
    """Start it again if it has died; says whether it had."""


@contextmanager
def review_database(campaign: Campaign) -> Iterator[DatabaseUse]:
    """Use a campaign's review database for the length of the block; an embedded one is started when nobody runs it.

    Args:
        campaign: Its review.database counts, and VOUCH_MONGODB_URI before that.

    Raises:
        UserError: There is no mongod for this platform, or it cannot use its folder.
        VouchError: It does not start.
    """
    uri = _own(campaign)
    if uri is not None:
        yield DatabaseUse(uri, lambda: False)
        return
    with SharedDatabase(queue_folder(queue_id(campaign))) as database:
        yield DatabaseUse(database.uri, database.revive)


def check_begun(campaign: Campaign) -> None:
    """Make sure that there can be a queue, before a database is started for nothing.

    Raises:
        UserError: Nobody has reviewed with the embedded database on this machine.
    """
    if _own(campaign) is None and not (queue_folder(queue_id(campaign)) / "data").exists():
        raise UserError("there is no review queue on this machine yet; vouch review begins one")


def _own(campaign: Campaign) -> str | None:
    if uri := os.environ.get(VARIABLE):
        return uri
    return None if campaign.review.database == EMBEDDED else campaign.review.database
