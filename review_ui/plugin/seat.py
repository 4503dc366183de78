"""Whose desk this server shows: read from the environment, opened once."""

import os
import threading
from functools import cache
from typing import Final

from review_ui.desk.desk import Desk
from review_ui.queue.queue import Queue
from schemas.errors import VouchError

_DEFAULT_BATCH: Final = 25
_lock: Final = threading.Lock()


def desk() -> Desk:
    """The desk of the reviewer whom this process serves.

    Raises:
        VouchError: The server was started by something else than `vouch review`, or the database is away.
    """
    with _lock:
        return _open()


def batch() -> int:
    """How many items are taken at a time."""
    return int(os.environ.get("VOUCH_REVIEW_BATCH", _DEFAULT_BATCH))


@cache
def _open() -> Desk:
    try:
        uri, queue_id, reviewer = (
            os.environ[name] for name in ("FIFTYONE_DATABASE_URI", "VOUCH_REVIEW_QUEUE", "VOUCH_REVIEW_REVIEWER")
        )
    except KeyError as error:
        raise VouchError(f"{error.args[0]} is not set; start this server by `vouch review`") from None
    return Desk(Queue.open(uri, queue_id), queue_id, reviewer)
