"""Runs a MongoDB on a private socket, connects to the queue in it, and opens the queue's settings and event log.

Errors of the database become one line each.
"""

import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar
from urllib.parse import quote, unquote

from bson.codec_options import CodecOptions
from pymongo import ASCENDING, IndexModel, MongoClient, ReturnDocument, errors
from pymongo.collection import Collection
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.tasks.store.private import private_folder

logger = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 600.0
"""Without a line in its log; a server that recovers logs its progress, and may take as long as it likes."""
STOP_TIMEOUT_S: Final = 60.0
CACHE_GB: Final = 1.0
"""Memory for mongod's cache; its own default is half of the machine."""

_NEEDS_OTHER_VERSION: Final = 62
"""mongod's exit code for data of a version that it cannot work with."""
_OTHER_VERSION: Final = ("UPGRADE PROBLEM", "unsupported upgrade or downgrade")
"""What its log has where that is found too late for the code."""

_LONGEST_SOCKET: Final = 100
"""Bytes of a socket's path; the system takes 107."""
_SHORT_FOLDER: Final = "vouch-mongod-"

_FIXED_IN: Final = {(6, 0): 27, (7, 0): 28, (8, 0): 17, (8, 2): 3}
"""The patch of each release that fixes CVE-2025-14847; later releases have it from the start."""
_UNSUPPORTED: Final = {(6, 0): "July 2025", (5, 0): "October 2024", (4, 4): "February 2024"}
"""Since when a release gets no fixes any more."""

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

What = Literal["leased", "returned", "expired", "skipped", "hinted", "submitted", "late", "undone"]
"""What happened; hinted: the reviewer asked what the models say; late: an answer that came when the item was another's,
or answered otherwise."""

_NOW: Final = {"$max": ["$$NOW", {"$add": ["$now", 1]}]}
"""Never earlier than the stamp before: a clock that was put back would let an answer that was taken back count."""


@contextmanager
def mongod(folder: Path) -> Iterator[str]:
    """Run a MongoDB server on a socket of its own for as long as the block lasts; yields its URI.

    One server serves any number of FiftyOne processes: give them its URI as FIFTYONE_DATABASE_URI. It logs to
    <folder>/mongod.log and is ended, and waited for, when the block ends. Raises what `start_mongod` does.
    """
    process, uri = start_mongod(folder)
    try:
        yield uri
    finally:
        stop_mongod(process)
        forget_socket(uri)


def start_mongod(
    folder: Path, uri: str | None = None, release: str | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a MongoDB server that goes on until it is stopped, on a socket that only this user can open.

    `uri` is that of a server that has died, to be taken over; without it, the server has an address of its own. Only
    the `release` of MongoDB, such as 7.0, that wrote what is in the folder is started.

    Returns:
        The process, which answers already, and its mongodb:// URI.

    Raises:
        UserError: There is no mongod for this platform, it lacks a system library, another one uses the folder, or one
            of another version wrote what is in it.
        VouchError: It does not start.
    """
    binary = mongod_binary(release)
    private_folder(folder)
    log = folder / "mongod.log"
    used = _new_socket(folder) if uri is None else socket_of(uri)
    uri = f"mongodb://{quote(str(used), safe='')}"
    log.unlink(missing_ok=True)
    command: list[str | Path] = [binary, "--dbpath", folder, "--bind_ip", used, "--nounixsocket", "--logpath", log]
    command += ["--wiredTigerCacheSizeGB", str(CACHE_GB)]
    # CVE-2025-14847 is in what unpacks compressed messages; on one machine they need no compression.
    command += ["--networkMessageCompressors", "disabled"]
    process = subprocess.Popen(  # noqa: S603 - a mongod, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # So that Ctrl-C in the terminal reaches only us, and we end it in order.
        start_new_session=True,
        umask=0o077,
    )
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
    if library := missing_library(binary):
        raise UserError(library)
    raise VouchError(f"mongod ended with code {process.returncode} instead of starting; see {log}")


def _new_socket(folder: Path) -> Path:
    """Choose where a server listens: in its folder, or in a private one where paths are too long or take no sockets.

    Every start has another: a second mongod in a folder would take the socket of the first away before it finds that
    the data are in use.
    """
    name = f"{secrets.token_hex(4)}.sock"
    path = folder / name
    try:
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            raise OSError
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return Path(tempfile.mkdtemp(prefix=_SHORT_FOLDER)) / name
    return path


def socket_of(uri: str) -> Path:
    """The socket that the URI of a server of ours names."""
    return Path(unquote(uri.removeprefix("mongodb://")))


def forget_socket(uri: str) -> None:
    """Remove what a server that has ended may have left of its socket."""
    path = socket_of(uri)
    with suppress(OSError):
        path.unlink(missing_ok=True)
        if path.parent.name.startswith(_SHORT_FOLDER):
            path.parent.rmdir()


def mongod_binary(release: str | None = None) -> Path:
    """Choose the newest of the mongod that FiftyOne's package brings and the one on the PATH.

    Where a release, such as 7.0, wrote the data, no other is tried on them: each opens its own.

    Raises:
        UserError: There is none, or none of that release.
    """
    # Found without importing fiftyone, which takes seconds.
    package = find_spec("fiftyone")
    places = (package and package.submodule_search_locations) or ()
    found = [path for place in places if (path := Path(place) / "db" / "bin" / "mongod").is_file()]
    if installed := shutil.which("mongod"):
        found.append(Path(installed))
    if not found:
        raise UserError("review needs MongoDB and this platform has no bundled mongod; install mongod 6.0+ on the PATH")
    if len(found) == 1 and release is None:
        return found[0]
    versions = {path: mongod_version(path) for path in found}
    fitting = [path for path in found if release is None or not versions[path] or _release(versions[path]) == release]
    if not fitting:
        names = ", ".join(sorted(f"{number[0]}.{number[1]}" for number in versions.values()))
        raise UserError(
            f"the review database was written by MongoDB {release}, and there is {names}; put a mongod {release} on "
            "the PATH, or move its data on (docs/review.md, A newer MongoDB)"
        )
    return max(fitting, key=lambda path: versions[path])


def mongod_version(binary: Path) -> tuple[int, ...]:
    """The version of a mongod, such as (7, 0, 28); empty where it does not say."""
    try:
        asked = subprocess.run([binary, "--version"], capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - a mongod, no shell
    except OSError:
        return ()
    return parse_version(asked.stdout)


def parse_version(text: str) -> tuple[int, ...]:
    """The first version with three numbers in a text; empty where there is none."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def _release(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version[:2]))


def release_of(version: str) -> str | None:
    """The release that a version belongs to, such as 7.0; None where it is no version."""
    return _release(parse_version(version)) or None


def version_risk(version: str) -> str:
    """What is wrong with a version of MongoDB, a line for people; empty where nothing is known to be."""
    number = parse_version(version)
    if not number:
        return ""
    release = number[0], number[1]
    faults = []
    if release in _UNSUPPORTED or release < min(_UNSUPPORTED):
        since = _UNSUPPORTED.get(release, "long ago")
        faults.append(f"gets no fixes any more (since {since})")
    if release < (8, 3) and number[2] < _FIXED_IN.get(release, 1 << 30):
        faults.append("lacks the one of CVE-2025-14847 (it gives away memory to whoever can connect)")
    if not faults:
        return ""
    return (
        f"the review database is MongoDB {version}, which {' and '.join(faults)}; nobody but you can connect to it: it "
        "listens on a private socket, on no port, and unpacks no compressed messages; docs/review.md says how to have "
        "a newer one"
    )


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
