"""Fills the queue from the review plans of a run: adds what is new, lets go what is not asked any more."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import pyarrow as pa

from review_ui.queue import state
from review_ui.queue.asked import Asked, asked_by, reviews_wanted
from review_ui.queue.compare import Changes, compare, read_pending
from review_ui.queue.connect import SCHEMA, Database, connect, make_indices, read_queue, told
from review_ui.queue.lease import complete, expire
from review_ui.queue.session import Session, open_session
from review_ui.queue.signals import Told, read_words
from review_ui.queue.undo import complete_undone
from review_ui.queue.unheard import heard
from review_ui.queue.write import Writer
from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.queue import FillOutcome, Kind
from schemas.records import Current
from tasks.labels.arrays import current_of
from tasks.labels.read import Decisions, current_markers, labelled_images
from tasks.plan.ledger import Ledger
from tasks.reviews.overlay import HumanWord
from tasks.reviews.plans import Plans, read_plans
from tasks.reviews.resolve import missed_and_checked, resolve
from tasks.reviews.verdicts import read_verdicts
from tasks.store.open import open_store
from tasks.store.store import Store

_CHUNK: Final = 10_000
"""Ids in one question to the server."""
_ID_DIGITS: Final = 12


def queue_id(campaign: Campaign) -> str:
    """Name the queue of a campaign's run: 12 hex digits of a hash over the workspace's uri and the run."""
    return _digest(f"{open_store(campaign.workspace).uri}\n{campaign.run.name}")


def fill_queue(campaign: Campaign, uri: str) -> FillOutcome:
    """Bring the queue of a campaign's run up to its review plans; people may work in it meanwhile.

    In it is what `vouch verdicts --tasks` would hand out of all plans about the labels as they are, each question once,
    in the order of plans and places. What was there stays as it is, unless other models made its label anew; what was
    answered elsewhere, or is not asked any more (as a doubtful label that the policy in force accepts), leaves. What
    somebody has on the desk stays. Killed in between, it does the rest the next time.

    Args:
        campaign: Whose run.
        uri: mongodb:// address of the server.

    Raises:
        UserError: The run has no labels or no review plan, or the database is away or refuses access.
        StoreError: A table, plan or file of verdicts is damaged.
    """
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current, plans = current_of(workspace, run), read_plans(workspace, run)
    if not plans:
        raise UserError(f"run {run!r} has no review plan yet; use `vouch plan-reviews` first")
    database = connect(uri)
    try:
        with told(database.where):
            return _fill(_opened(database, campaign, current), campaign, workspace, current, plans)
    finally:
        database.close()


def _fill(session: Session, campaign: Campaign, workspace: Store, current: Current, plans: Plans) -> FillOutcome:
    complete(session)
    complete_undone(session)
    expire(session)
    before = read_pending(session)
    verdicts = read_verdicts(workspace)
    answers = resolve(verdicts)
    fitting = [(plan, tasks) for plan, tasks in plans if plan.inputs == current.inputs]
    accepts = Decisions(workspace, session.run).accepts
    asked = asked_by(fitting, answers, missed_and_checked(verdicts), accepts, session.classes)
    seed, share = plans[0][0].seed, campaign.review.second_reviews

    def wanted(item: str, kind: Kind) -> int:
        return reviews_wanted(item, kind, seed, share)

    made_by = _digest(json.dumps(current.inputs, sort_keys=True))
    changes = compare(session, asked, answers, before, wanted, made_by)
    with Ledger.load(workspace, session.run) as ledger:
        run = _Run(workspace, session.run, ledger, current.fingerprint, seed)
        told = replace(_words(run, changes), inputs=made_by)
        writer = Writer(session, HumanWord.of(heard(session, verdicts), session.classes), told, wanted)
        missing = _write(run, writer, changes)
    _apply(session, changes)
    return FillOutcome(
        queue=session.queue,
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


class _Run(NamedTuple):
    """Where labels lie."""

    workspace: Store
    name: str
    ledger: Ledger
    fingerprint: str
    seed: int
    """Of the first plan."""


def _opened(database: Database, campaign: Campaign, current: Current) -> Session:
    """Make the queue if it is new, and write down what the campaign says now."""
    name = queue_id(campaign)
    read_queue(database, name)  # refuses that of a newer version
    make_indices(database)
    said = {
        "schema": SCHEMA,
        "workspace": open_store(campaign.workspace).uri,
        "run": campaign.run.name,
        "classes": [entry.name for entry in campaign.classes],
        "inputs": current.inputs,
        "lease_ms": max(1, round(campaign.review.lease_minutes * 60_000)),
    }
    database.queues.update_one({"_id": name}, {"$set": said, "$setOnInsert": {"seq": 0}}, upsert=True)
    return open_session(database, name)


def _words(run: _Run, changes: Changes) -> Told:
    markers = current_markers(run.workspace, run.name, run.ledger, run.fingerprint)
    return read_words(run.workspace, markers, [*changes.new, *changes.stale], run.name, run.seed)


def _write(run: _Run, writer: Writer, changes: Changes) -> int:
    """Write images and new items; lets items go whose image is not there, and returns how many questions those are."""
    keys = {task.key for task in changes.new} | changes.active.keys()
    wanted = pa.array(sorted(keys), pa.string())
    images = labelled_images(run.workspace, run.name, run.ledger, run.fingerprint, wanted)
    missing = keys - writer.write(images, changes.new, changes.stale)
    lost = [name for key in missing for name in changes.active.get(key, ())]
    changes.let_go(lost)
    return len(lost) + sum(task.key in missing for task in changes.new)


def _apply(session: Session, changes: Changes) -> None:
    _change(session, changes.gone, state.ask(False))
    _change(session, changes.back, state.ask(True))
    _change(session, changes.again, state.ask_again(), {"state": "answered"})
    untouched: dict[str, list[str]] = {"answered_by": [], "leases": []}
    for count, names in changes.wanted.items():
        _change(session, names, [{"$set": {"wanted": count}}, state.STATE], untouched)


def _change(
    session: Session, names: Sequence[str], change: list[state.Stage], only: Mapping[str, Any] | None = None
) -> None:
    for start in range(0, len(names), _CHUNK):
        keys = [session.key_of(name) for name in names[start : start + _CHUNK]]
        session.database.items.update_many({"_id": {"$in": keys}, **(only or {})}, change)


def _lines(asked: Asked, changes: Changes, missing: int, stale: int) -> tuple[str, ...]:
    lines = [
        f"{_questions(count)} about {name!r} left out: the campaign has no such class any more"
        for name, count in sorted(asked.strange.items())
    ]
    if missing:
        lines.append(f"{_questions(missing)} left out: the image has left the source, or failed in the last run")
    if stale:
        lines.append(
            f"{stale:,} review plan{'' if stale == 1 else 's'} left out, about labels as they were before their models "
            "or prompts changed; use `vouch plan-reviews` for new ones"
        )
    if changes.leased:
        lines.append(f"{_questions(changes.leased)} not asked any more, but on desks: answers to them count")
    return tuple(lines)


def _questions(count: int) -> str:
    return f"{count:,} question{'' if count == 1 else 's'}"
