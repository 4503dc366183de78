"""Answers of the queue: their rows are checked when they come, and written to the workspace or to a file later."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pymongo import DESCENDING

from vouch_labels.review_ui.queue.database import Document, QueueStore, connected
from vouch_labels.schemas.queue import PullOutcome, VerdictRow
from vouch_labels.schemas.reviews import LABEL_VERDICTS, VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import first_rows
from vouch_labels.tasks.boxes_masks import paired_box_iou
from vouch_labels.tasks.reviews.read_file import check_suffix, write_table
from vouch_labels.tasks.reviews.verdicts import mask_trouble, read_verdicts, trouble, write_verdicts
from vouch_labels.tasks.store.store import Store

ADDED: Final = ("reviewer", "seconds", "reviewed_at", "simulated")
"""Columns of a verdict that the queue adds."""
SUBMITTED: Final = tuple(name for name in VERDICTS.names if name not in ADDED)
"""The others."""
_NO_CORRECTION: Final = {
    # A mask can be corrected though class and box are right.
    "correct": ("class_name", *BOX),
    "not_an_object": ("class_name", *BOX, "rle_counts"),
}
"""Columns in which a verdict corrects nothing."""

MOST_BYTES: Final = 15 << 20
"""Of a body that is kept; a document has at most 16 MiB."""

TAKEN: Final = "taken"
"""A pull has it, and may have written it: it can no longer be taken back, and the next pull brings it all the same."""
UNDONE: Final = "undone"
"""It was taken back, and no pull brings it. Any other value of the mark: the file of the workspace that it is in."""
UNPULLED: Final[dict[str, Any]] = {"$in": [None, TAKEN]}
"""Answers that the workspace may not have; null and no mark at all are the same."""
NAMED: Final = 5
"""Late items that are named."""
_CHUNK: Final = 10_000
"""Events that are marked in one question to the server."""


def answer_key(item_id: str, reviewer: str, epoch: int) -> str:
    """The key of an answer's event: a reviewer gives one answer for each lease."""
    return f"{epoch}/{item_id}/{reviewer}"


def verdict_table(events: Iterable[Document]) -> pa.Table:
    """Make the rows of schemas.reviews.VERDICTS of answers, in their order; the first of each has the time spent."""
    rows = []
    for event in events:
        about = {"reviewer": event["reviewer"], "reviewed_at": event["at"], "simulated": event["simulated"]}
        for place, row in enumerate(event["verdicts"]):
            rows.append(row | about | {"seconds": None if place else event["seconds"]})
    return pa.Table.from_pylist(rows, schema=VERDICTS)


def checked_rows(rows: Sequence[VerdictRow], item: Document, classes: Sequence[str]) -> list[Document]:
    """Check the rows of an answer and give them all columns, the one about the item first.

    A ValueError says why they are no verdicts about this item.
    """
    checked = [_row(row, item) for row in rows]
    about = [row for row in checked if row["verdict"] != "missed"]
    if len(about) != 1:
        raise ValueError(
            f"an answer has one verdict about its item, and may have missed objects; this has {len(about)}"
        )
    if item["label_id"] is not None:
        _check_label(about[0], item)
    elif about[0]["verdict"] != "checked" or about[0]["class_name"] != item["class_name"]:
        raise ValueError("a question about an image is answered by `checked`, of the class that was looked for")
    for row in checked:
        # The item's own class may have left the campaign while the item was leased.
        if row["class_name"] not in (None, item["class_name"], *classes):
            raise ValueError(f"{row['class_name']!r} is no class of the campaign")
        if row["rle_counts"] is not None and (wrong := mask_trouble(row["rle_counts"], item["height"], item["width"])):
            raise ValueError(wrong)
    stand_in = {"reviewer": "", "simulated": False}
    if wrong := trouble(pa.Table.from_pylist([row | stand_in for row in checked], schema=VERDICTS)):
        raise ValueError(wrong)
    return [about[0], *(row for row in checked if row["verdict"] == "missed")]


def edit_iou(item: Document, row: Document) -> float | None:
    """How far a corrected box agrees with the one that was asked about: IoU; None without a correction."""
    if item["box"] is None or row["x0"] is None:
        return None
    boxes = (np.array([sides], np.float32) for sides in (item["box"], [row[side] for side in BOX]))
    return float(paired_box_iou(*boxes)[0])


def _row(row: VerdictRow, item: Document) -> Document:
    unknown = sorted(set(row) - set(SUBMITTED))
    if unknown:
        raise ValueError(f"a verdict of the queue has no column {unknown[0]!r}")
    full: Document = {name: row.get(name) for name in SUBMITTED}
    if full["key"] not in (None, item["key"]) or full["label_id"] not in (None, item["label_id"]):
        raise ValueError("the verdict is about another label or image than its item")
    if full["verdict"] == "missed" and full["label_id"] is not None:
        raise ValueError("a missed object has no label")
    return full | {"key": item["key"]}


def _check_label(row: Document, item: Document) -> None:
    if row["verdict"] not in LABEL_VERDICTS or row["label_id"] is None:
        raise ValueError(f"a question about a label is answered by one of {', '.join(LABEL_VERDICTS)}")
    if row["verdict"] == "wrong_class" and row["class_name"] == item["class_name"]:
        raise ValueError(f"wrong_class, but the label is {item['class_name']!r} already")
    row.update(dict.fromkeys(_NO_CORRECTION.get(row["verdict"], ())))


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
        late_events = database.events.find({"queue": queue.id, "what": "late"}, {"item": 1}).sort("seq", DESCENDING)
        late = [event["item"] for event in late_events]
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


def _mark(queue: QueueStore, answers: list[Document], name: str) -> None:
    for start in range(0, len(answers), _CHUNK):
        keys = [event["_id"] for event in answers[start : start + _CHUNK]]
        queue.database.events.update_many({"_id": {"$in": keys}}, {"$set": {"pulled": name or "known"}})
