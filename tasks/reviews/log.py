"""Keeps the log of a workspace, a chain of hashes: which plans were drawn, which answers came, which tests were made.

Each entry names the one before it by the hash of its bytes. Plans and policies name the entry that was the newest when
they were written, so that the log cannot be shortened or started again while they lie there; and the log names plans
and files of answers, so that these cannot go while it lies there.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Gate, Strict
from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.policy import LogMark
from vouch_labels.tasks.store.store import ObjectInfo, Store, map_ordered

FOLDER: Final = "reviews/log/"
ANSWERS: Final = "reviews/"
PLANS: Final = "reviews/plans/"
POLICIES: Final = "policies/"

_THREADS: Final = 4
_PLAN: Final = re.compile(rf"{PLANS}(?P<run>.+)/(?P<number>\d{{4,}})\.json")
_ANSWERS: Final = re.compile(r"[0-9a-f]{32}\.parquet")
_ENTRY: Final = re.compile(rf"{FOLDER}\d{{6,}}\.json")
_RESTORE: Final = "restore it: without it nobody knows which answers and tests there were"


class CertificationTest(Strict):
    """A test of a validation sample, as the log has it."""

    run: str = Field("", description="Name of the run.")
    look: int = Field(ge=1, description="Which test of the same labels it was: what delta is shared out by.")
    key: str = Field(description="Fingerprint of all that the result depends on: the same key is the same test.")
    inputs: dict[str, str] = Field(description="What the labels depended on -> its fingerprint.")
    population: str | None = Field(
        None, description="Name of the record of the labels it was about; None: an earlier version kept none."
    )
    plans: tuple[int, ...] = Field(description="Numbers of the review plans whose verdicts were tested.")
    precision: float = Field(description="T that was tested.")
    confidence: float = Field(description="1 - delta that was asked for.")
    gate: Gate | None = Field(None, description="What the guarantee was to be about, where that is known.")
    verdicts: str = Field("", description="Fingerprint of the verdicts that were tested.")
    missed: float = Field(0, ge=0, lt=1, description="Share of wrong labels that reviewers were assumed to miss.")
    whole: bool = Field(True, description="Whether the whole sample was tested, by the exact test.")
    answered: int | None = Field(
        None, description="Labels in the order drawn that the test after any answer saw; None: there was no such test."
    )
    seen: str = Field("", description="Fingerprint of the verdicts on these.")
    began: int | None = Field(None, description="Look of the first test after any answer that this one goes on with.")
    repeat: int = Field(0, ge=0, description="How many tests went before it so.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")


class LoggedPlan(Strict):
    """A review plan that was drawn."""

    run: str = Field(description="Name of the run.")
    number: int = Field(ge=1, description="Its number.")
    sha256: str = Field(description="Hex of SHA-256 over the bytes of its record.")


class Entry(Strict):
    """reviews/log/<number>.json: one plan, file of answers or test; the first, all that was there before the log."""

    number: int = Field(ge=1, description="1, 2, 3 ... within the workspace.")
    previous: str | None = Field(None, description="Hex of SHA-256 over the bytes of the entry before it.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")
    plans: tuple[LoggedPlan, ...] = Field((), description="Review plans that were drawn.")
    answers: tuple[str, ...] = Field((), description="Files of verdicts that were written.")
    tests: tuple[CertificationTest, ...] = Field((), description="Tests that were made.")


def log_plan(workspace: Store, run: str, number: int, record: bytes) -> None:
    """Log a review plan, whose record is written."""
    _append(workspace, {"plans": (LoggedPlan(run=run, number=number, sha256=_sha256(record)),)})


def log_answers(workspace: Store, name: str) -> None:
    """Log a file of verdicts, which is written."""
    _append(workspace, {"answers": (name,)})


def record_test(
    workspace: Store, test: CertificationTest, before: Callable[[Sequence[CertificationTest]], int]
) -> tuple[CertificationTest, LogMark]:
    """Log a test before its result is used, unless the run has one of its key; give it with its place in the log.

    before: says how many of the tests that are there, and of others that it knows of, spent a part of the same delta.

    Raises:
        StoreError: The log is damaged, or the workspace cannot be written.
    """
    while True:
        entries = _read(workspace)
        for entry, mark in entries:
            for one in entry.tests:
                if (one.run, one.key) == (test.run, test.key):
                    return one, mark
        if not entries and any((there := _before_the_log(workspace)).values()):
            # What is there already comes first, so that the test has an entry of its own.
            _put(workspace, None, there)
            continue
        tests = [one for entry, _ in entries for one in entry.tests]
        taken = test.model_copy(update={"look": 1 + before(tests)})
        written = _put(workspace, entries[-1][1] if entries else None, {"tests": (taken,)})
        if written:
            return taken, written


def every_test(workspace: Store) -> list[CertificationTest]:
    """Read the tests of a workspace in their order, those that an earlier version recorded included.

    Raises:
        StoreError: The log, or a record of an earlier version, is damaged.
    """
    if entries := _read(workspace):
        return [test for entry, _ in entries for test in entry.tests]
    return list(_earlier_tests(workspace))


def newest_entry(workspace: Store) -> LogMark | None:
    """Name the newest entry; None: there is none."""
    number = max(record_numbers(workspace, FOLDER), default=0)
    return LogMark(number=number, sha256=_sha256(workspace.get(_key(number)).data)) if number else None


def logged_answers(workspace: Store) -> set[str]:
    """Names of the files of verdicts that were written since there is a log, and of those that were there then.

    Raises:
        StoreError: The log is damaged.
    """
    return {name for entry, _ in _read(workspace) for name in entry.answers}


def lost_answers(workspace: Store, names: Iterable[str]) -> StoreError:
    """The error that says which files of verdicts are missing."""
    return StoreError(f"{workspace.uri}/{ANSWERS}{min(names)} is missing; {_RESTORE}")


def check_log(workspace: Store) -> None:
    """Make sure that everything is there that was logged, and the whole log that plans and policies speak of.

    Raises:
        StoreError: An entry, a plan or a file of verdicts is missing, or has changed; it names it.
    """
    entries = _read(workspace)
    # Listed after the log was read: what it names was written before.
    there = [info.key for info in workspace.list(ANSWERS)]
    if missing := {name for entry, _ in entries for name in entry.answers} - {
        key.removeprefix(ANSWERS) for key in there
    }:
        raise lost_answers(workspace, missing)
    records = [key for key in there if _PLAN.fullmatch(key)]
    plans = dict(zip(records, map_ordered(lambda key: workspace.get(key).data, records, _THREADS), strict=True))
    for entry, _ in entries:
        for plan in entry.plans:
            key = f"{PLANS}{plan.run}/{plan.number:04d}.json"
            if _sha256(plans.get(key, b"")) != plan.sha256:
                state = "has changed since it was written" if key in plans else "is missing"
                raise StoreError(f"{workspace.uri}/{key} {state}; {_RESTORE}")
    known = {mark.number: mark.sha256 for _, mark in entries}
    for key, mark in _marks(workspace, plans):
        if known.get(mark.number) != mark.sha256:
            state = "is not the one that was there" if mark.number in known else "is missing, and was there"
            raise StoreError(f"{workspace.uri}/{_key(mark.number)} {state} when {key} was written; {_RESTORE}")


def record_numbers(workspace: Store, folder: str, digits: int = 4) -> list[int]:
    """Numbers of the records <number>.json of so many digits or more, below a key that ends with a slash; ascending."""
    record = re.compile(rf"(\d{{{digits},}})\.json")
    names = (record.fullmatch(info.key.removeprefix(folder)) for info in workspace.list(folder))
    return sorted(int(name[1]) for name in names if name)


def _append(workspace: Store, what: dict[str, Any]) -> None:
    """Write an entry; the rest of the log is not read."""
    while True:
        if last := newest_entry(workspace):
            new = what
        else:
            there = _before_the_log(workspace)
            new = {
                name: (*part, *(one for one in what.get(name, ()) if one not in part)) for name, part in there.items()
            }
        if _put(workspace, last, new):
            return


def _put(workspace: Store, last: LogMark | None, what: dict[str, Any]) -> LogMark | None:
    """Write the entry after the last one; None: another process was first."""
    number, previous = (1, None) if last is None else (last.number + 1, last.sha256)
    entry = Entry(number=number, previous=previous, created=datetime.now(UTC).isoformat(timespec="seconds"), **what)
    data = entry.model_dump_json(indent=1, exclude_defaults=True).encode() + b"\n"
    written = workspace.put(_key(number), data, if_absent=True)
    return LogMark(number=number, sha256=_sha256(data)) if written else None


def _read(workspace: Store) -> list[tuple[Entry, LogMark]]:
    """Every entry with its name, in order, the chain being whole."""
    infos = [info for info in workspace.list(FOLDER) if _ENTRY.fullmatch(info.key)]
    for place, info in enumerate(infos, 1):
        if info.key != _key(place):
            raise StoreError(f"{workspace.uri}/{_key(place)} is missing; {_RESTORE}")
    entries: list[tuple[Entry, LogMark]] = []
    for number, data in enumerate(map_ordered(lambda info: _content(workspace, info), infos, _THREADS), 1):
        try:
            entry = Entry.model_validate_json(data)
        except ValidationError:
            raise StoreError(f"{workspace.uri}/{_key(number)} is damaged; {_RESTORE}") from None
        if entry.number != number or entry.previous != (entries[-1][1].sha256 if entries else None):
            # An entry that says its own number is taken at its word of the one before it.
            changed = number - 1 if entry.number == number and entries else number
            raise StoreError(f"{workspace.uri}/{_key(changed)} has changed since it was written; {_RESTORE}")
        entries.append((entry, LogMark(number=number, sha256=_sha256(data))))
    return entries


def _content(workspace: Store, info: ObjectInfo) -> bytes:
    """An entry; each is fetched once, though one command asks for the log several times."""
    place = (workspace.uri, info.key, info.etag)
    if place not in _fetched:
        blob = workspace.get(info.key)
        _fetched[workspace.uri, info.key, blob.etag] = blob.data
        return blob.data
    return _fetched[place]


_fetched: dict[tuple[str, str, str], bytes] = {}


def _before_the_log(workspace: Store) -> dict[str, tuple[Any, ...]]:
    """What is there already when the first entry is written."""
    there = [info.key for info in workspace.list(ANSWERS)]
    # A file of another name was put there by hand, and may go as it came.
    answers = tuple(name for key in there if _ANSWERS.fullmatch(name := key.removeprefix(ANSWERS)))
    found = ((key, _PLAN.fullmatch(key)) for key in there)
    plans = tuple(
        LoggedPlan(run=record["run"], number=int(record["number"]), sha256=_sha256(workspace.get(key).data))
        for key, record in found
        if record
    )
    return {"plans": plans, "answers": answers, "tests": tuple(_earlier_tests(workspace))}


def _earlier_tests(workspace: Store) -> Iterator[CertificationTest]:
    """Tests that earlier versions kept as runs/<run>/looks/<number>.json; each run with one has a plan."""
    runs = {record["run"] for info in workspace.list(PLANS) if (record := _PLAN.fullmatch(info.key))}
    for run in sorted(runs):
        folder = f"runs/{run}/looks/"
        for number in record_numbers(workspace, folder, digits=1):
            key = f"{folder}{number}.json"
            values = _json(workspace.get(key).data)
            values.pop("number", None)
            try:
                yield CertificationTest.model_validate(values | {"run": run})
            except ValidationError:
                raise StoreError(f"{workspace.uri}/{key} is damaged; {_RESTORE}") from None


def _marks(workspace: Store, plans: Mapping[str, bytes]) -> Iterator[tuple[str, LogMark]]:
    """Key of a plan or policy -> the entry that was the newest then; whoever uses a record says that it is damaged."""
    for key, data in plans.items():
        with suppress(ValidationError):
            yield key, LogMark.model_validate(_json(data).get("log"))
    keys = [info.key for info in workspace.list(f"{POLICIES}certified-")]
    for key, data in zip(keys, map_ordered(lambda key: workspace.get(key).data, keys, _THREADS), strict=True):
        with suppress(ValidationError, AttributeError):
            yield key, LogMark.model_validate(_json(data).get("certification", {}).get("log"))


def _json(data: bytes) -> dict[str, Any]:
    """An object; empty where it is none: whoever needs it says that it is damaged."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(number: int) -> str:
    return f"{FOLDER}{number:06d}.json"
