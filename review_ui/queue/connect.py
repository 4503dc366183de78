"""Connects to the MongoDB that holds the queue, and tells what is wrong with it in one line."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bson.codec_options import CodecOptions
from pymongo import ASCENDING, IndexModel, MongoClient
from pymongo.collection import Collection
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from schemas.errors import UserError, VouchError

SCHEMA: Final = 1
"""Version of the documents; a newer one is refused."""
DEFAULT_DATABASE: Final = "fiftyone"
WAIT_S: Final = 30.0
"""Within which a server must be found, and a connection be made."""

Document = dict[str, Any]

_OPTIONS: Final = CodecOptions[Document](tz_aware=True)
_REFUSED: Final = (13, 18, 8000)
"""Unauthorized, AuthenticationFailed, and what MongoDB's hosted service says for both."""


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
    """Their images with the labels that stand."""
    events: Collection[Document]
    """Everything that people did, append-only but for the mark `pulled` (marks.py); a write that returns is on disk."""
    requests: Collection[Document]
    """Change requests that the guard saw, append-only."""

    def now(self) -> datetime:
        """The server's time: the one clock by which leases run out."""
        with told(self.where):
            # A command does not go by the client's own options.
            found: datetime = self.client.admin.command("hello", codec_options=_OPTIONS)["localTime"]
            return found

    def close(self) -> None:
        """Give connections back."""
        self.client.close()


def connect(uri: str) -> Database:
    """Connect to a server, and make sure that it answers and lets us in.

    Args:
        uri: mongodb:// or mongodb+srv:// address. The database in it is FiftyOne's, named by FIFTYONE_DATABASE_NAME.

    Raises:
        UserError: The address cannot be read, the server is away, or it refuses access; never says the password.
    """
    try:
        client: MongoClient[Document] = MongoClient(
            uri,
            tz_aware=True,
            serverSelectionTimeoutMS=int(WAIT_S * 1000),
            connectTimeoutMS=int(WAIT_S * 1000),
            appname="vouch",
        )
    except (InvalidURI, ConfigurationError, ValueError, TypeError):
        # What PyMongo says of it may quote parts of a password.
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
        with told(found.where):
            found.queues.find_one({}, {"_id": 1})
    except BaseException:
        client.close()
        raise
    return found


def make_indices(database: Database) -> None:
    """Make what the queue's questions are looked up by; nothing happens where it is there."""
    made = {
        database.items: ("state place", "leases.reviewer", "leases.until", "key"),
        database.images: ("key",),
        database.events: ("what reviewer seq", "what pulled", "what twice", "key"),
    }
    with told(database.where):
        for collection, keys in made.items():
            names = (("queue", *key.split()) for key in keys)
            collection.create_indexes([IndexModel([(name, ASCENDING) for name in parts]) for parts in names])


def read_queue(database: Database, queue_id: str) -> Document | None:
    """Read what a queue says of itself.

    Raises:
        UserError: A newer version of Vouch wrote it.
    """
    with told(database.where):
        found = database.queues.find_one({"_id": queue_id})
    if found is not None:
        check_version(found)
    return found


def check_version(queue: Mapping[str, Any]) -> None:
    """Refuse a queue that a newer version of Vouch wrote.

    Raises:
        UserError: It is one.
    """
    if queue["schema"] > SCHEMA:
        raise UserError(
            f"the review queue {queue['_id']} was written by a newer version of Vouch; use that version, or let it "
            "export the answers and start with another database"
        )


@contextmanager
def told(where: str) -> Iterator[None]:
    """Turn what goes wrong with the server into one line.

    Args:
        where: Host and port, for people.

    Raises:
        UserError: It is away or refuses access.
        VouchError: It fails for another reason.
    """
    try:
        yield
    except (ConnectionFailure, ExecutionTimeout):
        raise UserError(
            f"the review database at {where} does not answer; start it, or mend its address (VOUCH_MONGODB_URI)"
        ) from None
    except OperationFailure as error:
        if error.code in _REFUSED:
            raise UserError(
                f"the review database at {where} refuses access; check user and password in VOUCH_MONGODB_URI, and the "
                "user's role (readWrite)"
            ) from None
        raise VouchError(f"the review database at {where} failed: {_line(error)}") from error
    except PyMongoError as error:
        raise VouchError(f"the review database at {where} failed: {_line(error)}") from error


def _line(error: PyMongoError) -> str:
    details = getattr(error, "details", None)
    said = details.get("errmsg") if isinstance(details, dict) else None
    return " ".join(str(said or error).split())[:300]


def _hosts(uri: str) -> str:
    """Host and port of an address that PyMongo has read."""
    if uri.startswith("mongodb+srv://"):
        found = re.fullmatch(r"mongodb\+srv://(?:[^@/]*@)?([^@/?]+).*", uri)
        return found[1] if found else "its address"
    nodes: list[tuple[str, int | None]] = parse_uri(uri)["nodelist"]
    return ", ".join(f"{host}:{port}" if port else host for host, port in nodes)
