"""Keeps the change requests that reviewers' browsers sent: drafts can be found there whatever became of them."""

from typing import Final

from bson import Binary

from review_ui.queue.connect import Document
from review_ui.queue.session import Session

MOST_BYTES: Final = 15 << 20
"""Of a body that is kept; a document has at most 16 MiB."""


def log_request(session: Session, reviewer: str, method: str, path: str, body: bytes, status: int) -> None:
    """Append a request; a body beyond `MOST_BYTES` is cut, and marked so.

    Args:
        session: The queue.
        reviewer: Who sent it.
        method: PATCH, POST ...
        path: Path with its query.
        body: As it came.
        status: HTTP status of the answer.
    """
    kept = body[:MOST_BYTES]
    text: object
    try:
        text = kept.decode()
    except UnicodeDecodeError:
        text = Binary(kept)
    entry: Document = {
        "queue": session.queue,
        "reviewer": reviewer,
        "method": method,
        "path": path,
        "body": text,
        "status": status,
        "cut": len(body) > MOST_BYTES,
    }
    # Stamped by the server: the one clock of everything that is logged.
    session.database.requests.insert_one(entry | {"at": session.database.now()})
