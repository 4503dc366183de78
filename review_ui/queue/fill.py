"""Fills the queue from the review plans of a run: adds what is new, removes what is no longer asked."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple

import pyarrow as pa

from vouch_labels.review_ui.queue import state
from vouch_labels.review_ui.queue.answers import UNPULLED
from vouch_labels.review_ui.queue.database import (
    SCHEMA,
    Database,
    Document,
    QueueStore,
    connected,
    make_indices,
    read_queue,
    translated_errors,
)
from vouch_labels.review_ui.queue.documents import Writer
from vouch_labels.review_ui.queue.items import visible_verdicts
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.reasons import (
    READ_TWICE,
    Asked,
    Task,
    Wanted,
    asked_by,
    read_reasons,
    reviews_wanted,
)
from vouch_labels.schemas.campaign import Campaign, shown_names
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.queue import FillOutcome
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.certify.data import Guarantee, guarantee_asked
from vouch_labels.tasks.certify.live import drawn_sample
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.read import Decisions, labelled_images
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.labels.scan import shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.overlay import HumanLabel
from vouch_labels.tasks.reviews.plans import Plans, read_plans
from vouch_labels.tasks.reviews.resolve import Answers, missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.store import Store

_CHUNK: Final = 10_000
"""Ids in one question to the server."""
_ID_DIGITS: Final = 12
_SECOND_REVIEWS: Final = 0.2
"""Share of labels that are read by a second person, once there is one."""
_UNTOUCHED: Final[dict[str, list[str]]] = {"answered_by": [], "leases": []}

_FIELDS = ("item", "key", "state", "purpose", "asked", "answered_by", "wanted", "again", "inputs")


def queue_id(campaign: Campaign) -> str:
    """Name the queue of a campaign's run: 12 hex digits of a hash over the workspace's uri and the run."""
    return _digest(f"{open_store(campaign.workspace).uri}\n{campaign.run.name}")


def fill_queue(campaign: Campaign, uri: str) -> FillOutcome:
    """Bring the queue of a campaign's run up to its review plans; people may work in it meanwhile.

    In it is what `vouch verdicts --tasks` would export of all plans about the labels as they are, each question once,
    in the order of plans and places. What was there stays as it is, unless other models made its label again; what was
    answered elsewhere, or is not asked any more (as a low-confidence label that the active policy accepts), leaves.
    What somebody has leased stays. Killed in between, it does the rest the next time.

    Raises:
        UserError: The run has no labels or no review plan, or the database is away or refuses access.
        StoreError: A table, plan or file of verdicts is damaged.
    """
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current, plans = current_of(workspace, run), read_plans(workspace, run)
    if not plans:
        raise UserError(f"run {run!r} has no review plan yet; use `vouch plan-reviews` first")
    with connected(uri) as database:
        queue = _opened(database, campaign, current, plans)
        return _fill(queue, workspace, current, plans, guarantee_asked(campaign))


def _fill(queue: Queue, workspace: Store, current: Current, plans: Plans, guarantee: Guarantee) -> FillOutcome:
    queue.complete()
    queue.expire()
    before = read_pending(queue)
    verdicts = present_verdicts(workspace, current)
    answers = resolve(verdicts)
    fitting = [(plan, tasks) for plan, tasks in plans if plan.inputs == current.inputs]
    accepts = Decisions(workspace, queue.run).accepts
    asked = asked_by(fitting, answers, missed_and_checked(verdicts), accepts, queue.classes)
    wanted = _wanted(queue)
    made_by = _digest(json.dumps(current.inputs, sort_keys=True))
    changes = compare(queue, asked, answers, before, wanted, made_by)
    sample = drawn_sample(workspace, fitting, answers, guarantee)
    kept = None if sample is None else sample.model_dump_json()
    queue.database.queues.update_one({"_id": queue.id}, {"$set": {"sample": kept}})
    with Ledger.load(workspace, queue.run) as ledger:
        run = (workspace, queue.run, ledger, current.fingerprint)
        details = read_reasons(shards(*run), [*changes.new, *changes.stale], queue.run, plans[0][0].seed)
        corrections = HumanLabel.of(visible_verdicts(queue, verdicts), queue.classes)
        writer = Writer(queue, corrections, replace(details, inputs=made_by), wanted)
        missing = _write(partial(labelled_images, *run), writer, changes)
    _change(queue, changes.gone, state.ask(False))
    _change(queue, changes.back, state.ask(True))
    _change(queue, changes.again, state.ask_again(), {"state": "answered"})
    for count, names in changes.wanted.items():
        _change(queue, names, _for(count), _UNTOUCHED)
    return FillOutcome(
        queue=queue.id,
        added=writer.added + len(changes.back),
        kept=changes.kept,
        removed=len(changes.gone) - changes.leased,
        leased_but_gone=changes.leased,
        again=len(changes.again),
        images=writer.written,
        lines=_lines(asked, changes, missing, len(plans) - len(fitting)),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def _opened(database: Database, campaign: Campaign, current: Current, plans: Plans) -> Queue:
    """Make the queue if it is new, and store the campaign's current settings."""
    name = queue_id(campaign)
    read_queue(database, name)  # refuses that of a newer version
    make_indices(database)
    settings = {
        "schema": SCHEMA,
        "workspace": open_store(campaign.workspace).uri,
        "run": campaign.run.name,
        "classes": [entry.key for entry in campaign.classes],
        # As pairs: a name may hold what the database takes for a path.
        "names": list(shown_names(campaign.classes).items()),
        "inputs": current.inputs,
        "lease_ms": max(1, round(campaign.review.lease_minutes * 60_000)),
        "seed": plans[0][0].seed,
        "second_reviews": campaign.review.second_reviews,
    }
    database.queues.update_one({"_id": name}, {"$set": settings, "$setOnInsert": {"seq": 0}}, upsert=True)
    return Queue.read(database, name)


def join(queue: Queue, reviewers: Sequence[str]) -> None:
    """Note who reviews; from the second person on, part of what nobody has read yet is read by two."""
    database = queue.database
    with translated_errors(database.where):
        database.queues.update_one({"_id": queue.id}, {"$addToSet": {"reviewers": {"$each": list(reviewers)}}})
        wanted = _wanted(queue)
        once = {"queue": queue.id, "wanted": 1, "purpose": {"$in": list(READ_TWICE)}, "again": None, **_UNTOUCHED}
        found = database.items.find(once, {"item": 1, "purpose": 1})
        names = [item["item"] for item in found if wanted(item["item"], item["purpose"]) > 1]
        _change(queue, names, _for(2), _UNTOUCHED)


def _wanted(queue: QueueStore) -> Wanted:
    """How many people are asked, by what the queue's settings say and who has joined it."""
    settings = queue.database.queues.find_one({"_id": queue.id}) or {}
    share = settings.get("second_reviews")
    if share is None:
        share = _SECOND_REVIEWS if len(settings.get("reviewers", ())) > 1 else 0.0
    return partial(reviews_wanted, seed=settings.get("seed", 0), share=share)


def _for(people: int) -> list[state.Stage]:
    return [{"$set": {"wanted": people}}, state.STATE]


@dataclass
class Changes:
    """What has to change for the queue to ask what the plans do."""

    new: list[Task] = field(default_factory=list)
    """Not in the queue yet."""
    back: list[str] = field(default_factory=list)
    """Items that had left it."""
    again: list[str] = field(default_factory=list)
    """Items that were answered, and are open all the same: reviewers disagree."""
    gone: list[str] = field(default_factory=list)
    """Items that are not asked any more."""
    leased: int = 0
    """Of these, those that somebody has leased."""
    wanted: dict[int, list[str]] = field(default_factory=lambda: {1: [], 2: []})
    """How many are to answer -> items that nobody has answered and that had another number."""
    stale: list[Task] = field(default_factory=list)
    """Questions whose items show labels as other models made them: an id is one of image, class and box alone."""
    kept: int = 0
    """Items that stay as they are."""
    active: dict[str, list[str]] = field(default_factory=dict)
    """Key of an image -> items of the queue, new ones not among them, that are asked about it."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove items of the queue after all."""
        lost = frozenset(names)
        if lost:
            self.kept -= len(lost.difference(self.back, self.again))
            self.back = [name for name in self.back if name not in lost]
            self.again = [name for name in self.again if name not in lost]
            self.gone += names


def _write(images_of: Callable[[pa.Array], Iterable[ExportImage]], writer: Writer, changes: Changes) -> int:
    """Write images and new items; remove items whose image is not there, and return how many questions those are."""
    keys = {task.key for task in changes.new} | changes.active.keys()
    images = images_of(pa.array(sorted(keys), pa.string()))
    missing = keys - writer.write(images, changes.new, changes.stale)
    lost = [name for key in missing for name in changes.active.get(key, ())]
    changes.remove(lost)
    return len(lost) + sum(task.key in missing for task in changes.new)


def _change(
    queue: QueueStore, names: Sequence[str], change: list[state.Stage], only: Mapping[str, Any] | None = None
) -> None:
    for start in range(0, len(names), _CHUNK):
        keys = [queue.key_of(name) for name in names[start : start + _CHUNK]]
        queue.database.items.update_many({"_id": {"$in": keys}, **(only or {})}, change)


def _lines(asked: Asked, changes: Changes, missing: int, stale: int) -> tuple[str, ...]:
    lines = [
        f"{plural(count, 'question')} about {name!r} left out: the campaign has no such class any more"
        for name, count in sorted(asked.unknown.items())
    ]
    if missing:
        lines.append(
            f"{plural(missing, 'question')} left out: the image has left the source, or failed in the last run"
        )
    if stale:
        lines.append(
            f"{plural(stale, 'review plan')} left out, about labels as they were before their models or prompts "
            "changed; use `vouch plan-reviews` for new ones"
        )
    if changes.leased:
        lines.append(f"{plural(changes.leased, 'question')} not asked any more, but leased: answers to them count")
    return tuple(lines)


class Pending(NamedTuple):
    """Items with answers that the workspace does not have yet, and the number of the last event before."""

    items: frozenset[str]
    seq: int


def read_pending(queue: QueueStore) -> Pending:
    """Find answers that the workspace does not have yet; to be called before its verdicts are read.

    So an answer that is pulled meanwhile is known from one of the two.
    """
    settings = queue.database.queues.find_one({"_id": queue.id}, {"seq": 1})
    return Pending(_unpulled(queue), settings["seq"] if settings else 0)


def compare(queue: QueueStore, asked: Asked, answers: Answers, before: Pending, wanted: Wanted, inputs: str) -> Changes:
    """Find what has to change for the queue to ask what the plans do.

    An item leaves when it was answered elsewhere or is not asked any more. One that was answered here by one of two
    stays until the other has. `before` is what `read_pending` gave before the answers were read.
    """
    changes = Changes()
    # The workspace may not have had them when its answers were read.
    since = {"queue": queue.id, "what": "submitted", "seq": {"$gt": before.seq}}
    pending = before.items | _unpulled(queue) | {one["item"] for one in queue.database.events.find(since, {"item": 1})}
    seen = set()
    reviewers = dict(zip(answers.label_ids, answers.reviewers.tolist(), strict=True))
    for item in queue.database.items.find({"queue": queue.id}, dict.fromkeys(_FIELDS, 1)):
        name = item["item"]
        seen.add(name)
        if name in asked.open and item.get("inputs") != inputs:
            changes.stale.append(asked.open[name])
        if item["state"] == "answered":
            if name in asked.open and name not in pending:
                changes.again.append(name)
                changes.active.setdefault(item["key"], []).append(name)
        # The workspace has an answer by one of two.
        elif name in asked.open or (
            name in asked.items and item["answered_by"] and reviewers.get(name, 0) < item["wanted"]
        ):
            _keep(changes, item, wanted(name, item["purpose"]))
        elif item["asked"]:
            changes.gone.append(name)
            changes.leased += item["state"] == "leased"
    changes.new += [task for name, task in asked.open.items() if name not in seen]
    return changes


def _keep(changes: Changes, item: Document, wanted: int) -> None:
    name = item["item"]
    changes.active.setdefault(item["key"], []).append(name)
    if item["asked"]:
        changes.kept += 1
    else:
        changes.back.append(name)
    # A dispute is settled by one reading more.
    if wanted != item["wanted"] and not item["answered_by"] and not item.get("again"):
        changes.wanted[wanted].append(name)


def _unpulled(queue: QueueStore) -> frozenset[str]:
    waiting = {"queue": queue.id, "what": "submitted", "pulled": UNPULLED, "seq": {"$nin": queue.undone()}}
    return frozenset(event["item"] for event in queue.database.events.find(waiting, {"item": 1}))
