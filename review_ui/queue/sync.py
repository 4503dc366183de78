"""Writes answers of the queue: into the workspace, each verdict once, or into a file."""

from pathlib import Path
from typing import Final

import pyarrow as pa
from pymongo import DESCENDING

from vouch_labels.review_ui.queue.answers import TAKEN, UNDONE, verdict_table
from vouch_labels.review_ui.queue.database import Document, QueueStore, connected
from vouch_labels.schemas.queue import PullOutcome
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.arrow import first_rows
from vouch_labels.tasks.reviews.read_file import check_suffix, write_table
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.store.store import Store

NAMED: Final = 5
"""Late items that are named."""
_CHUNK: Final = 10_000
"""Events that are marked in one question to the server."""


def pull_queue(uri: str, queue_id: str, workspace: Store) -> PullOutcome:
    """Write the answers that the workspace does not have yet into reviews/.

    They are claimed first: what was taken back by then is left out, and what is claimed cannot be taken back any more.
    Were we killed after that, the next pull brings them; it finds those in the workspace that were written, and adds
    none.

    Raises:
        UserError: There is no such queue, or the database is away or refuses access.
        StoreError: The workspace cannot be read or written.
    """
    with connected(uri) as database:
        queue = QueueStore.read(database, queue_id)
        undone = queue.undone()
        _claim(queue, undone)
        answers = _submitted(queue, {"pulled": TAKEN})
        late = _late(queue)
        before = {"queue": queue.id, "what": "submitted", "pulled": {"$nin": [None, TAKEN, UNDONE]}}
        earlier = database.events.count_documents(before)
        table = verdict_table(answers)
        rows = first_rows(pa.concat_tables([(known := read_verdicts(workspace)), table]), VERDICTS.names)
        new = rows[rows >= known.num_rows] - known.num_rows
        name = write_verdicts(workspace, table.take(pa.array(new, pa.int64())))
        _mark(queue, answers, name)
    return PullOutcome(
        verdicts=len(new),
        answers=len(answers),
        known=table.num_rows - len(new),
        earlier=earlier,
        undone=len(undone),
        late=len(late),
        late_items=tuple(late[:NAMED]),
        file=name,
    )


def export_queue(uri: str, queue_id: str, path: Path) -> int:
    """Write all answers of a queue but those taken back to a file, pulled or not; returns how many verdicts."""
    check_suffix(path)
    with connected(uri) as database:
        queue = QueueStore.read(database, queue_id)
        table = verdict_table(_submitted(queue, {"pulled": {"$ne": UNDONE}, "seq": {"$nin": queue.undone()}}))
    write_table(path, table)
    return int(table.num_rows)


def _claim(queue: QueueStore, undone: list[int]) -> None:
    # Answers of earlier versions that were taken back have no mark, but their numbers are known.
    free = {"queue": queue.id, "what": "submitted", "pulled": None, "seq": {"$nin": undone}}
    queue.database.events.update_many(free, {"$set": {"pulled": TAKEN}})


def _submitted(queue: QueueStore, which: Document) -> list[Document]:
    wanted = {"queue": queue.id, "what": "submitted", **which}
    return list(queue.database.events.find(wanted).sort("seq"))


def _late(queue: QueueStore) -> list[str]:
    """Items with answers that came when they were another's, latest first."""
    wanted = {"queue": queue.id, "what": "late"}
    return [event["item"] for event in queue.database.events.find(wanted, {"item": 1}).sort("seq", DESCENDING)]


def _mark(queue: QueueStore, answers: list[Document], name: str) -> None:
    for start in range(0, len(answers), _CHUNK):
        keys = [event["_id"] for event in answers[start : start + _CHUNK]]
        queue.database.events.update_many({"_id": {"$in": keys}}, {"$set": {"pulled": name or "known"}})
