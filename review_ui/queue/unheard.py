"""Finds what a reviewer is not to see of others' answers: those to questions that he may be asked as well."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from review_ui.queue.session import Session

_WAITING: Final[dict[str, Any]] = {"wanted": {"$gt": 1}, "state": {"$in": ["open", "leased"]}}
"""Items that may have an answer, and are to have another one."""


def unheard_items(session: Session, keys: Sequence[str], reviewer: str) -> frozenset[str]:
    """Find the items of images whose answers a reviewer is not to see, on whatever question about the image.

    Args:
        session: The queue.
        keys: Of images.
        reviewer: Who.
    """
    wanted = {"queue": session.queue, "key": {"$in": list(keys)}, **_WAITING, "answered_by": {"$ne": reviewer}}
    return frozenset(item["item"] for item in session.database.items.find(wanted, {"item": 1}))


def heard(session: Session, verdicts: pa.Table) -> pa.Table:
    """Leave out verdicts of the workspace that not everybody is to see; the queue's own log has them for the others.

    A verdict does not say which question an object was drawn with, so what a reviewer drew anywhere in the image goes.

    Args:
        session: The queue.
        verdicts: Rows of schemas.reviews.VERDICTS.
    """
    wanted = {"queue": session.queue, **_WAITING, "answered_by.0": {"$exists": True}}
    found = [
        (item["label_id"] or "", item["key"], name)
        for item in session.database.items.find(wanted, {"label_id": 1, "key": 1, "answered_by": 1})
        for name in item["answered_by"]
    ]
    labels = _among(verdicts, "label_id", [f"{label}\t{name}" for label, _, name in found])
    drawn = _among(verdicts, "key", [f"{key}\t{name}" for _, key, name in found])
    return verdicts.filter(pc.invert(pc.or_(labels, pc.and_(drawn, pc.equal(verdicts["verdict"], "missed")))))


def _among(verdicts: pa.Table, column: str, pairs: list[str]) -> pa.ChunkedArray:
    """Which rows are about one of these and by one of their reviewers."""
    about = pc.binary_join_element_wise(verdicts[column], verdicts["reviewer"], "\t")
    return pc.is_in(about, value_set=pa.array(pairs, pa.string()), skip_nulls=True)
