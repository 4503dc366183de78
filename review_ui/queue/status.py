"""Counts how far a queue is: for a reviewer, without breaking blindness, and for who runs it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Final, get_args

import numpy as np
import pyarrow as pa
from pymongo import DESCENDING

from vouch_labels.review_ui.queue.answers import UNPULLED, verdict_table
from vouch_labels.review_ui.queue.database import Document, QueueStore, translates_errors
from vouch_labels.schemas.queue import Kind, Left, Progress, PurposeCounts, QueueStatus, ReviewerProgress
from vouch_labels.tasks.certify.live import DrawnSample
from vouch_labels.tasks.reviews.resolve import resolve

ENOUGH: Final = 10
"""Answers of a kind from which on a reviewer's own speed is a better estimate than the plan."""
EVERY: Final = 10
"""Answers of the sample after which what they certify is found again."""
LATEST: Final = 200
"""Answers that a reviewer's speed is taken from."""


@translates_errors
def progress(queue: QueueStore, reviewer: str) -> Progress:
    """Count, see schemas.queue.Progress."""
    groups = _groups(queue, reviewer)
    mine = [group for group in groups if group["mine"]]
    # What this reviewer has answered counts as answered though it may wait for a second reading.
    answered = [group for group in groups if not group["mine"] and (group["answered"] or group["state"] == "answered")]
    free = [group for group in groups if not group["mine"] and not group["answered"]]
    open_ = [group for group in free if group["state"] == "open"]
    own = _own_seconds(queue, reviewer)
    every = [seconds for values in own.values() for seconds in values]
    events, by_me = queue.database.events.count_documents, {"queue": queue.id, "reviewer": reviewer}
    return Progress(
        open=_total(open_),
        leased=_total(mine) + _total([group for group in free if group["state"] == "leased"]),
        answered=_total(answered),
        mine=_total(mine),
        answered_by_me=events(by_me | {"what": "submitted"}) - events(by_me | {"what": "undone"}),
        by_class={queue.shown_name(name) or "": found for name, found in _by(open_, "class_name").items()},
        by_kind={kind: count for kind in get_args(Kind) if (count := _by(open_, "kind").get(kind))},
        minutes_left=sum(_seconds(group, own) for group in [*open_, *mine]) / 60,
        seconds_each=median(every) if every else None,
        certified=_certified(queue, groups),
    )


@translates_errors
def left_for(queue: QueueStore, reviewers: Sequence[str]) -> Left:
    """Count, see schemas.queue.Left."""
    count = queue.database.items.count_documents
    asked = {"queue": queue.id, "asked": True}
    second = count(asked | {"state": "open", "answered_by": {"$all": list(reviewers)}})
    return Left(items=count(asked | {"state": {"$in": ["open", "leased"]}}) - second, second=second)


@translates_errors
def queue_status(queue: QueueStore) -> QueueStatus:
    """Count for who runs the queue, split by purpose: not to be shown to reviewers."""
    purposes: dict[str, Counter[str]] = defaultdict(Counter)
    groups = _groups(queue, "")
    for group in groups:
        purposes[group["purpose"]][group["state"]] += group["count"]
    left = [group for group in groups if group["state"] in ("open", "leased")]
    own = _own_seconds(queue)
    undone = queue.undone()
    twice, agreement = _agreement(queue)
    submitted = {"queue": queue.id, "what": "submitted", "seq": {"$nin": undone}}
    events = queue.database.events
    # Boxes that answers corrected: IoU before and after.
    ious = [event["box_iou"] for event in events.find(submitted | {"box_iou": {"$ne": None}}, {"box_iou": 1})]
    return QueueStatus(
        queue=queue.id,
        run=queue.run,
        purposes={purpose: PurposeCounts(**counts) for purpose, counts in sorted(purposes.items())},
        reviewers=_reviewers(queue, submitted),
        twice=twice,
        agreement=agreement,
        hinted=events.count_documents(submitted | {"hinted": True}),
        edited=len(ious),
        edit_iou=median(ious) if ious else None,
        minutes_left=sum(_seconds(group, own) for group in left) / 60,
        own_pace=any(len(own.get(group["kind"], [])) >= ENOUGH for group in left),
        unpulled=events.count_documents(submitted | {"pulled": UNPULLED}),
        late=events.count_documents({"queue": queue.id, "what": "late"}),
        certified=_certified(queue, groups),
    )


def _certified(queue: QueueStore, groups: Sequence[Document]) -> str | None:
    """What the answers of the sample certify so far; found again once some more have come.

    The answers count in the order drawn, up to the first that is missing, so that one alone rarely shows.
    """
    answered = sum(group["count"] for group in groups if (group["purpose"], group["state"]) == ("certify", "answered"))
    settings = queue.database.queues.find_one({"_id": queue.id}, {"sample": 1}) or {}
    kept = settings.get("sample")
    if kept is None:
        return None
    place = (queue.database.where, queue.id)
    state = (hash(kept), answered // EVERY)
    if _found.get(place, (None, ""))[0] != state:
        sample = DrawnSample.model_validate_json(kept)
        items = [
            one["item"] for one in queue.database.items.find({"queue": queue.id, "purpose": "certify"}, {"item": 1})
        ]
        wanted = {"queue": queue.id, "what": "submitted", "item": {"$in": items}, "seq": {"$nin": queue.undone()}}
        answers = resolve(verdict_table(queue.database.events.find(wanted).sort("seq")))
        codes = np.asarray(answers.wrong_of(pa.array(sample.labels, pa.string())), np.int64)
        _found[place] = state, str(sample.so_far(codes))
    return _found[place][1]


_found: Final[dict[tuple[str, str], tuple[tuple[int, int], str]]] = {}


def _groups(queue: QueueStore, reviewer: str) -> list[Document]:
    """Items by all that is counted, with how many and their seconds."""
    who = {"$literal": reviewer}
    fields = {
        **{name: f"${name}" for name in ("state", "purpose", "kind", "class_name")},
        "mine": {"$in": [who, "$leases.reviewer"]},
        "answered": {"$in": [who, "$answered_by"]},
    }
    found = queue.database.items.aggregate(
        [
            {"$match": {"queue": queue.id}},
            {"$group": {"_id": fields, "count": {"$sum": 1}, "seconds": {"$sum": "$seconds"}}},
        ]
    )
    return [group["_id"] | {"count": group["count"], "seconds": group["seconds"]} for group in found]


def _own_seconds(queue: QueueStore, reviewer: str | None = None) -> dict[str, list[float]]:
    """Kind -> seconds of the reviewer's latest answers, or of everybody's."""
    wanted = {"queue": queue.id, "what": "submitted"} | ({} if reviewer is None else {"reviewer": reviewer})
    latest = queue.database.events.find(wanted, {"kind": 1, "seconds": 1}).sort("seq", DESCENDING).limit(LATEST)
    found: dict[str, list[float]] = defaultdict(list)
    for event in latest:
        if event["seconds"] is not None:
            found[event["kind"]].append(event["seconds"])
    return found


def _seconds(group: Document, own: dict[str, list[float]]) -> float:
    times = own.get(group["kind"], [])
    expected: float = group["count"] * median(times) if len(times) >= ENOUGH else group["seconds"]
    return expected


def _agreement(queue: QueueStore) -> tuple[int, float | None]:
    """Items that two people answered, and the share of them on which all gave the same verdict and the same class."""
    given: dict[str, dict[str, tuple[str, str | None]]] = defaultdict(dict)
    wanted = {"queue": queue.id, "what": "submitted", "twice": True, "seq": {"$nin": queue.undone()}}
    fields = {"item": 1, "reviewer": 1, "verdict": 1, "verdicts.class_name": 1}
    for event in queue.database.events.find(wanted, fields).sort("seq"):
        # The first is the one about the item.
        given[event["item"]][event["reviewer"]] = event["verdict"], event["verdicts"][0]["class_name"]
    both = [set(answers.values()) for answers in given.values() if len(answers) > 1]
    return len(both), sum(len(answers) == 1 for answers in both) / len(both) if both else None


def _reviewers(queue: QueueStore, submitted: Document) -> dict[str, ReviewerProgress]:
    grouped = queue.database.events.aggregate(
        [
            {"$match": submitted},
            {"$group": {"_id": "$reviewer", "answered": {"$sum": 1}, "seconds": {"$sum": "$seconds"}}},
        ]
    )
    answered = {group["_id"]: group for group in grouped}
    leased = queue.database.items.aggregate(
        [
            {"$match": {"queue": queue.id, "leases.0": {"$exists": True}}},
            {"$unwind": "$leases"},
            {"$group": {"_id": "$leases.reviewer", "mine": {"$sum": 1}}},
        ]
    )
    mine = {group["_id"]: group["mine"] for group in leased}
    return {
        name: ReviewerProgress(
            answered=answered[name]["answered"] if name in answered else 0,
            mine=mine.get(name, 0),
            seconds=answered[name]["seconds"] if name in answered else 0.0,
        )
        for name in sorted(answered.keys() | mine.keys())
    }


def _by(groups: list[Document], name: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for group in groups:
        # MongoDB leaves out of a group what is null.
        found[group.get(name) or ""] += group["count"]
    return dict(sorted(found.items()))


def _total(groups: list[Document]) -> int:
    return sum(group["count"] for group in groups)
