"""Runs FiftyOne's MongoDB on the loopback interface, connects to the queue in it, and opens its settings and event log.

Errors of the database become one line each.
"""

import logging
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar

from bson.codec_options import CodecOptions
from pymongo import ASCENDING, IndexModel, MongoClient, ReturnDocument, errors
from pymongo.collection import Collection
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from vouch_labels.schemas.errors import UserError, VouchError

logger = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 600.0
"""Without a line in its log; a server that recovers logs its progress, and may take as long as it likes."""
STOP_TIMEOUT_S: Final = 60.0
PORT_ATTEMPTS: Final = 5
CACHE_GB: Final = 1.0
"""Memory for mongod's cache; its own default is half of the machine."""

_NEEDS_OTHER_VERSION: Final = 62
"""mongod's exit code for data of a version that it cannot work with."""
_OTHER_VERSION: Final = ("UPGRADE PROBLEM", "unsupported upgrade or downgrade")
"""What its log has where that is found too late for the code."""

_LIBRARY_PACKAGES: Final = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}
"""Debian's and Ubuntu's package of each system library that the bundled mongod loads and a small system may lack."""

SCHEMA: Final = 1
"""Version of the documents; a newer one is refused."""
DEFAULT_DATABASE: Final = "fiftyone"
WAIT_S: Final = 30.0
"""Within which a server must be found, and a connection be made."""

Document = dict[str, Any]

_Store = TypeVar("_Store", bound="QueueStore")
_P = ParamSpec("_P")
_R = TypeVar("_R")

_OPTIONS: Final = CodecOptions[Document](tz_aware=True)
_REFUSED: Final = (13, 18, 8000)
"""Unauthorized, AuthenticationFailed, and the code of MongoDB's hosted service for both."""

What = Literal["leased", "returned", "expired", "skipped", "submitted", "late", "undone"]
"""What happened; late: an answer that came when the item was another's, or answered otherwise."""

_NOW: Final = {"$max": ["$$NOW", {"$add": ["$now", 1]}]}
"""Never earlier than the stamp before: a clock that was put back would let an answer that was taken back count."""


@contextmanager
def mongod(folder: Path) -> Iterator[str]:
    """Run a MongoDB server on a free port of the loopback interface for as long as the block lasts; yields its URI.

    One server serves any number of FiftyOne processes: give them its URI as FIFTYONE_DATABASE_URI. It logs to
    <folder>/mongod.log and is ended, and waited for, when the block ends. Raises what `start_mongod` does.
    """
    process, uri = start_mongod(folder)
    try:
        yield uri
    finally:
        stop_mongod(process)


def start_mongod(folder: Path, port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """Start a MongoDB server that goes on until it is stopped; without a port, on a free one of the loopback interface.

    Returns:
        The process, which answers already, and its mongodb:// URI.

    Raises:
        UserError: There is no mongod for this platform, it lacks a system library, another one uses the folder, or one
            of another version wrote what is in it.
        VouchError: It does not start.
    """
    binary = mongod_binary()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "mongod.log"
    command: list[str | Path]
    for _ in range(PORT_ATTEMPTS):
        used = port or _free_port()
        log.unlink(missing_ok=True)
        command = [binary, "--dbpath", folder, "--port", str(used), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        command += ["--logpath", log, "--wiredTigerCacheSizeGB", str(CACHE_GB)]
        process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # So that Ctrl-C in the terminal reaches only us, and we end it in order.
            start_new_session=True,
        )
        uri = f"mongodb://127.0.0.1:{used}"
        try:
            if _answers(process, uri, log):
                return process, uri
        except BaseException:
            stop_mongod(process)
            raise
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        if "DBPathInUse" in text:
            raise UserError(f"another mongod uses {folder}; end that review first, or choose another folder")
        if process.returncode == _NEEDS_OTHER_VERSION or any(sign in text for sign in _OTHER_VERSION):
            raise UserError(
                f"the database in {folder} was written by another version of MongoDB; install that version, or "
                "move the folder away and start again (verdicts that are in the workspace stay there)"
            )
        if "Address already in use" not in text:
            break
        if port is not None:
            raise VouchError(f"another program has taken port {port} of the review database; run the command again")
    if library := missing_library(binary):
        raise UserError(library)
    raise VouchError(f"mongod ended with code {process.returncode} instead of starting; see {log}")


def mongod_binary() -> Path:
    """The mongod that FiftyOne's package brings, else the one on the PATH; a UserError if there is none."""
    # Found without importing fiftyone, which takes seconds.
    package = find_spec("fiftyone")
    for place in (package and package.submodule_search_locations) or ():
        path = Path(place) / "db" / "bin" / "mongod"
        if path.is_file():
            return path
    installed = shutil.which("mongod")
    if installed is None:
        raise UserError("review needs MongoDB and this platform has no bundled mongod; install mongod 6.0+ on the PATH")
    return Path(installed)


def missing_library(binary: Path) -> str | None:
    """Which system library keeps a mongod from being loaded, and how it is installed; None where it loads."""
    asked = subprocess.run([binary, "--version"], capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - our own binary, no shell
    # The messages of the dynamic loader, glibc's and musl's.
    found = re.search(r"(?:shared libraries: |shared library )(\S+?):", asked.stderr)
    if found is None:
        return None
    library = Path(found[1]).name
    package = _LIBRARY_PACKAGES.get(library)
    install = f"on Debian and Ubuntu: apt install {package}" if package else "install the package that brings it"
    return f"the review database (mongod) needs the system library {library}, which is missing; {install}"


def _answers(process: subprocess.Popen[bytes], uri: str, log: Path) -> bool:
    """Wait until the server answers; False when it ended instead."""
    patience_s, logged, logged_at = 0.25, 0, time.monotonic()
    while time.monotonic() - logged_at < START_TIMEOUT_S:
        if process.poll() is not None:
            return False
        with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=int(patience_s * 1000)) as client:
            try:
                client.admin.command("ping")
            except errors.PyMongoError:
                # Where connecting takes longer than this, the next try gives it more time.
                patience_s = min(1.5 * patience_s, 10.0)
            else:
                # The one that answers might be another that took the port first.
                return process.poll() is None
        if (size := log.stat().st_size if log.exists() else 0) != logged:
            logged, logged_at = size, time.monotonic()
    raise VouchError(f"mongod neither answered nor logged anything for {START_TIMEOUT_S:.0f} s; see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop_mongod(process: subprocess.Popen[bytes]) -> None:
    """End a server that this process started, and wait until it has written everything."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        logger.warning("mongod (pid %d) did not end in %.0f s and is killed", process.pid, STOP_TIMEOUT_S)
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Database:
    """The collections; every document names its queue."""

    client: MongoClient[Document]
    where: str
    """Host and port, for people."""
    queues: Collection[Document]
    """Id of the queue -> run, classes, settings, version of the documents."""
    items: Collection[Document]
    """Questions with their leases."""
    images: Collection[Document]
    """Their images with their current labels."""
    events: Collection[Document]
    """What people did, append-only but for the mark `pulled` (answers.py); a write that returns is on disk."""
    requests: Collection[Document]
    """Change requests that the guard saw, append-only."""

    def now(self) -> datetime:
        """The server's time: the one clock by which leases run out."""
        with translated_errors(self.where):
            # A command does not go by the client's own options.
            found: datetime = self.client.admin.command("hello", codec_options=_OPTIONS)["localTime"]
            return found

    def close(self) -> None:
        """Give connections back."""
        self.client.close()


def connect(uri: str) -> Database:
    """Connect to a server, and make sure that it answers and lets us in.

    The database in it is FiftyOne's, named by FIFTYONE_DATABASE_NAME.

    Raises:
        UserError: The address cannot be read, the server is away, or it refuses access; never shows the password.
    """
    try:
        client: MongoClient[Document] = MongoClient(
            uri,
            tz_aware=True,
            serverSelectionTimeoutMS=int(WAIT_S * 1000),
            connectTimeoutMS=int(WAIT_S * 1000),
            appname="vouch",
        )
    except (errors.InvalidURI, errors.ConfigurationError, ValueError, TypeError):
        # PyMongo's message may quote parts of a password.
        raise UserError("the address of the review database cannot be read; write mongodb://HOST:PORT") from None
    database = client.get_database(os.environ.get("FIFTYONE_DATABASE_NAME") or DEFAULT_DATABASE)
    durable = WriteConcern(w="majority", j=True)
    found = Database(
        client=client,
        where=_hosts(uri),
        queues=database.get_collection("vouch_queues", _OPTIONS),
        items=database.get_collection("vouch_items", _OPTIONS),
        images=database.get_collection("vouch_images", _OPTIONS),
        events=database.get_collection("vouch_events", _OPTIONS, write_concern=durable),
        requests=database.get_collection("vouch_log", _OPTIONS),
    )
    try:
        with translated_errors(found.where):
            found.queues.find_one({}, {"_id": 1})
    except BaseException:
        client.close()
        raise
    return found


@contextmanager
def connected(uri: str) -> Iterator[Database]:
    """Connect to a server for the length of the block, in which its errors are translated, see `translated_errors`."""
    database = connect(uri)
    try:
        with translated_errors(database.where):
            yield database
    finally:
        database.close()


def make_indices(database: Database) -> None:
    """Make what the queue's questions are looked up by; nothing happens where it is there."""
    made = {
        database.items: ("state place", "leases.reviewer", "leases.until", "key"),
        database.images: ("key",),
        database.events: ("what reviewer seq", "what pulled", "what twice", "key"),
    }
    with translated_errors(database.where):
        for collection, keys in made.items():
            names = (("queue", *key.split()) for key in keys)
            collection.create_indexes([IndexModel([(name, ASCENDING) for name in parts]) for parts in names])


def read_queue(database: Database, queue_id: str) -> Document | None:
    """Read the settings of a queue; a UserError refuses one that a newer version of Vouch wrote."""
    with translated_errors(database.where):
        found = database.queues.find_one({"_id": queue_id})
    if found is not None and found["schema"] > SCHEMA:
        raise UserError(
            f"the review queue {queue_id} was written by a newer version of Vouch; use that version, or let it "
            "export the answers and start with another database"
        )
    return found


@contextmanager
def translated_errors(where: str) -> Iterator[None]:
    """Translate errors of the server into one line that names its host and port.

    Raises:
        UserError: It is away or refuses access.
        VouchError: It fails for another reason.
    """
    try:
        yield
    except (errors.ConnectionFailure, errors.ExecutionTimeout):
        raise UserError(
            f"the review database at {where} does not answer; start it, or fix its address (VOUCH_MONGODB_URI)"
        ) from None
    except errors.OperationFailure as error:
        if error.code in _REFUSED:
            raise UserError(
                f"the review database at {where} refuses access; check user and password in VOUCH_MONGODB_URI, and the "
                "user's role (readWrite)"
            ) from None
        raise VouchError(f"the review database at {where} failed: {_line(error)}") from error
    except errors.PyMongoError as error:
        raise VouchError(f"the review database at {where} failed: {_line(error)}") from error


def _line(error: errors.PyMongoError) -> str:
    details = getattr(error, "details", None)
    message = details.get("errmsg") if isinstance(details, dict) else None
    return " ".join(str(message or error).split())[:300]


def _hosts(uri: str) -> str:
    """Host and port of an address that PyMongo has read."""
    if uri.startswith("mongodb+srv://"):
        found = re.fullmatch(r"mongodb\+srv://(?:[^@/]*@)?([^@/?]+).*", uri)
        return found[1] if found else "its address"
    nodes: list[tuple[str, int | None]] = parse_uri(uri)["nodelist"]
    return ", ".join(f"{host}:{port}" if port else host for host, port in nodes)


@dataclass(frozen=True)
class QueueStore:
    """One queue in the database: its settings and its event log."""

    database: Database
    id: str
    run: str
    classes: tuple[str, ...]
    """Of the campaign, in the order declared."""
    lease_ms: int
    names: Mapping[str, str] = field(default_factory=dict)
    """Name that labels carry -> present name, of renamed classes: documents have the former, people see the latter."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The present names of the classes."""
        return tuple(self.names.get(name, name) for name in self.classes)

    def shown_name(self, class_name: str | None) -> str | None:
        """The present name of a class."""
        return None if class_name is None else self.names.get(class_name, class_name)

    def carried_name(self, shown: str | None) -> str | None:
        """The name that the labels of a class carry, by its present one."""
        return next((name for name, present in self.names.items() if present == shown), shown)

    @classmethod
    def read(cls, database: Database, queue_id: str) -> Self:
        """Read a queue that was filled.

        Raises:
            UserError: There is no such queue, or a newer version of Vouch wrote it.
        """
        found = read_queue(database, queue_id)
        if found is None:
            raise UserError(f"there is no review queue {queue_id!r} in the database at {database.where}; fill it first")
        classes, names = tuple(found["classes"]), dict(found.get("names") or ())
        return cls(database, queue_id, found["run"], classes, found["lease_ms"], names)

    def key_of(self, name: str) -> str:
        """The key of the document of an item or an image."""
        return f"{self.id}/{name}"

    def record(self, what: What, reviewer: str, details: Sequence[Document]) -> None:
        """Append events of one moment; they are on disk when this returns."""
        if details:
            self.database.events.insert_many(self._events(what, reviewer, details))

    def record_once(self, what: What, reviewer: str, key: str, details: Document) -> bool:
        """Append an event of which there can be one of this key; False if there was."""
        event = self._events(what, reviewer, [{"_id": self._event_key(what, key)} | details])[0]
        try:
            self.database.events.insert_one(event)
        except errors.DuplicateKeyError:
            return False
        return True

    def happened(self, what: What, keys: Iterable[str]) -> set[str]:
        """Which of the events that can happen only once have happened."""
        wanted = {self._event_key(what, key): key for key in keys}
        found = self.database.events.find({"_id": {"$in": list(wanted)}}, {"_id": 1})
        return {wanted[event["_id"]] for event in found}

    def event(self, what: What, key: str) -> Document | None:
        """The event of this key, of which there can be one."""
        return self.database.events.find_one({"_id": self._event_key(what, key)})

    def undone(self, **which: object) -> list[int]:
        """Numbers of the answers that were taken back; `which` are conditions of MongoDB on fields of the events."""
        found = self.database.events.find({"queue": self.id, "what": "undone", **which}, {"of": 1})
        return [event["of"] for event in found]

    def _event_key(self, what: What, key: str) -> str:
        return f"{self.id}/{what}/{key}"

    def _events(self, what: What, reviewer: str, details: Sequence[Document]) -> list[Document]:
        """Give events their number and time: numbers ascend with gaps, events of one moment share one."""
        stamp = self.database.queues.find_one_and_update(
            {"_id": self.id},
            [{"$set": {"seq": {"$add": ["$seq", 1]}, "now": _NOW}}],
            projection={"seq": 1, "now": 1},
            return_document=ReturnDocument.AFTER,
        )
        if stamp is None:
            raise UserError(f"the review queue {self.id} is gone from the database; start the review again")
        fields = {"queue": self.id, "what": what, "reviewer": reviewer, "seq": stamp["seq"], "at": stamp["now"]}
        return [fields | one for one in details]


def translates_errors(method: Callable[Concatenate[_Store, _P], _R]) -> Callable[Concatenate[_Store, _P], _R]:
    """Decorate a method of a queue so that errors of its database become one line, see `translated_errors`."""

    @wraps(method)
    def translating(self: _Store, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with translated_errors(self.database.where):
            return method(self, *args, **kwargs)

    return translating
