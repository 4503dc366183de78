"""Finds what a reviewer is not to see of others' answers: those to questions that he may be asked as well."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from review_ui.queue.rows import verdict_table
from review_ui.queue.session import Session
from schemas.reviews import VERDICTS
from tasks.arrow import row_codes

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

    These are the answers to questions that wait for another person, with what was drawn beside them. What came from
    elsewhere stays, also that of the same reviewers: no log of this queue has it.

    Args:
        session: The queue.
        verdicts: Rows of schemas.reviews.VERDICTS.
    """
    waiting = {"queue": session.queue, **_WAITING, "answered_by.0": {"$exists": True}}
    items = {item["item"] for item in session.database.items.find(waiting, {"item": 1})}
    answers = {"queue": session.queue, "what": "submitted", "twice": True, "seq": {"$nin": session.undone()}}
    said = verdict_table(one for one in session.database.events.find(answers) if one["item"] in items)
    # As whole rows, by which a pull tells what the workspace has.
    codes = row_codes(pa.concat_tables([said, verdicts]), VERDICTS.names)
    return verdicts.filter(pa.array(~np.isin(codes[said.num_rows :], codes[: said.num_rows])))
