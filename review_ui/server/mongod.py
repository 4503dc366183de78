"""Shares one embedded MongoDB among all reviews of a queue on a machine, or uses the user's own.

The first review starts it, the last one out stops it.
"""

import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from platformdirs import user_data_path
from pydantic import Field, ValidationError

from vouch_labels.review_ui.queue.database import forget_socket, release_of, socket_of, start_mongod, stop_mongod
from vouch_labels.review_ui.queue.fill import queue_id
from vouch_labels.schemas.campaign import EMBEDDED, Campaign, Strict
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.tasks.store.lock import ProcessId, is_alive, process_id
from vouch_labels.tasks.store.private import private, private_folder

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 300.0
STOP_TIMEOUT_S: Final = 60.0
_FIRST_RELEASE: Final = "6.0"
"""Of MongoDB that FiftyOne's package has brought since there is a review."""

VARIABLE: Final = "VOUCH_MONGODB_URI"


class DatabaseRecord(Strict):
    """The server that runs, as server.json has it."""

    place: str = Field(description="Machine, boot and process namespace within which pid means something.")
    pid: int = Field(description="Process.")
    started: str = Field(description="Its start in kernel ticks: a later process may have the same pid.")
    uri: str = Field(description="mongodb:// address of its socket.")
    version: str = Field(description="Of MongoDB.")


class SharedDatabase:
    """Uses the server of a folder for the length of a with block.

    Whoever uses it shares a lock that the system gives back even when its holder is killed. A server that outlived its
    users is found by its record and used again; one that has died is started again at its address.
    """

    def __init__(self, folder: Path) -> None:
        """Take the queue's folder on this machine; nothing is started before the block is entered."""
        self._folder = folder
        self._record_file = folder / "server.json"
        self._release_file = folder / "mongodb-release"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Join those who use the server, and start it when nobody does.

        Raises:
            UserError: There is no mongod for this platform, or it cannot use the folder.
            VouchError: It does not start, or does not answer.
        """
        self._users = open_lock(self._folder / "users.lock")
        try:
            with locked(self._folder / "start.lock"):
                fcntl.flock(self._users, fcntl.LOCK_SH)
                self._record = self._join() or self._start(None)
        except BaseException:
            self._users.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave; the last one out stops the server."""
        with locked(self._folder / "start.lock"), self._users:
            if try_lock(self._users):
                self._stop()

    @property
    def uri(self) -> str:
        """Its mongodb:// address; it stays the same for the length of the block."""
        return self._record.uri

    @property
    def version(self) -> str:
        """Of MongoDB."""
        return self._record.version

    def revive(self) -> bool:
        """Start the server again, at the same address, if it has died; returns whether it had."""
        if self._is_alive():
            return False
        with locked(self._folder / "start.lock"):
            found = self._read()
            if found is not None and found.uri == self._record.uri:
                self._record = found
            if self._is_alive():
                return False  # another of its users was faster
            self._record = self._start(self._record.uri)
        return True

    def _is_alive(self) -> bool:
        if self._process is not None and self._process.poll() is None and self._process.pid == self._record.pid:
            return True
        return _runs(self._record)

    def _join(self) -> DatabaseRecord | None:
        """Find a server that runs."""
        found = self._read()
        if found is None or not _runs(found):
            return None
        if not _version(found.uri):
            raise VouchError(
                f"the review database (pid {found.pid}) does not answer within {ANSWER_TIMEOUT_S:.0f} s; end it with "
                f"kill {found.pid} and run the command again"
            )
        logger.info("using the review database that runs as process %d", found.pid)
        return found

    def _start(self, uri: str | None) -> DatabaseRecord:
        data = self._folder / "data"
        self._process, uri = start_mongod(data, uri, self._release())
        place, pid, started = process_id(self._process.pid)
        record = DatabaseRecord(place=place, pid=pid, started=started, uri=uri, version=_version(uri))
        if release := release_of(record.version):
            self._release_file.write_text(f"{release}\n", encoding="ascii")
        for left in data.glob("*.sock"):
            # Of servers that were killed: this one has the data.
            if left != socket_of(uri):
                left.unlink(missing_ok=True)
        text = self._record_file.with_suffix(".new")
        with open(text, "w", encoding="utf-8", opener=private) as file:
            file.write(record.model_dump_json())
        text.replace(self._record_file)
        return record

    def _release(self) -> str | None:
        """The release that wrote the data; None: there are none yet. What does not say was written by the first."""
        if not (self._folder / "data" / "WiredTiger").exists():
            return None
        try:
            return self._release_file.read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return _FIRST_RELEASE

    def _stop(self) -> None:
        self._record = self._read() or self._record
        if self._process is not None and self._process.pid == self._record.pid:
            stop_mongod(self._process)
        elif _runs(self._record):
            _end(self._record)
        forget_socket(self._record.uri)
        self._record_file.unlink(missing_ok=True)

    def _read(self) -> DatabaseRecord | None:
        try:
            return DatabaseRecord.model_validate_json(self._record_file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            logger.warning("%s is no record of a server, and is replaced", self._record_file)
            return None


def _runs(record: DatabaseRecord) -> bool:
    return bool(is_alive(ProcessId(record.place, record.pid, record.started)))


def _version(uri: str) -> str:
    """The version of the server at an address; empty where none answers."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=int(ANSWER_TIMEOUT_S * 1000)) as client:
        try:
            return str(client.server_info()["version"])
        except PyMongoError:
            return ""


def _end(record: DatabaseRecord) -> None:
    """End a server that another process started, which may be gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if not _runs(record):
                return
            time.sleep(0.05)
        logger.warning("the review database (pid %d) did not end in %.0f s", record.pid, STOP_TIMEOUT_S)


@dataclass(frozen=True)
class DatabaseUse:
    """A database that can be used now."""

    uri: str
    """mongodb:// address, perhaps with a password: never print it."""
    revive: Callable[[], bool]
    """Start it again if it has died; returns whether it had."""
    version: str = ""
    """Of an embedded MongoDB."""


@contextmanager
def review_database(campaign: Campaign) -> Iterator[DatabaseUse]:
    """Use a campaign's review database for the length of the block; an embedded one is started when none runs.

    VOUCH_MONGODB_URI goes before the campaign's review.database.

    Raises:
        UserError: There is no mongod for this platform, or it cannot use its folder.
        VouchError: It does not start.
    """
    uri = _own(campaign)
    if uri is not None:
        yield DatabaseUse(uri, lambda: False)
        return
    with SharedDatabase(queue_folder(queue_id(campaign))) as database:
        yield DatabaseUse(database.uri, database.revive, database.version)


def check_started(campaign: Campaign) -> None:
    """Raise a UserError where there can be no queue, before a database is started for nothing."""
    if _own(campaign) is None and not (queue_folder(queue_id(campaign)) / "data").exists():
        raise UserError("there is no review queue on this machine yet; vouch review starts one")


def _own(campaign: Campaign) -> str | None:
    if uri := os.environ.get(VARIABLE):
        return uri
    return None if campaign.review.database == EMBEDDED else campaign.review.database


def queue_folder(queue: str) -> Path:
    """The folder of a queue in the user's data folder; not created."""
    return user_data_path("vouch") / "review" / queue


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock alone, waiting for it; the system gives it back even when we are killed."""
    with open_lock(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_lock(path: Path) -> BinaryIO:
    """Open a file to lock, made if there is none; a UserError says that the folder cannot be written."""
    try:
        private_folder(path.parent)
        return open(path, "ab", opener=private)
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        raise UserError(f"cannot write {path.parent}: {reason}; fix it, or set XDG_DATA_HOME elsewhere") from error


def try_lock(file: BinaryIO) -> bool:
    """Take a file's lock alone if nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
