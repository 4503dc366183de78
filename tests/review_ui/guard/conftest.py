"""A guard around a small application that answers everything, and keeps what reached it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from tests.conftest import draw
from vouch_labels.review_ui.guard.app import Guard
from vouch_labels.review_ui.guard.auth import token_hash
from vouch_labels.review_ui.guard.settings import GuardSettings
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.store import Store

TOKEN = "a-token-of-the-tests"
DATASET = "vouch-q-ann"
DATASET_ID = "0123456789abcdef01234567"
MINE = "a" * 24
LOST = "b" * 24
LABEL = "c" * 24
HEADERS = {"origin": "http://127.0.0.1"}


@dataclass
class Behind:
    """The application behind the guard: notes what reaches it, and answers what it is set to."""

    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    answer: object = field(default_factory=dict)
    status: int = 200
    error: Exception | None = None
    raises_at: str = "start"
    """When the error is raised: before the answer, in its midst, or after it."""

    async def __call__(self, scope, receive, send):
        request = Request(scope, receive)
        self.seen.append((request.method, request.url.path, await request.body()))
        if self.error is not None and self.raises_at == "start":
            raise self.error
        await JSONResponse(self.answer, self.status)(scope, receive, self._only_started(send) if self.error else send)
        if self.error is not None:
            raise self.error

    def _only_started(self, send):
        async def sending(message):
            if self.raises_at == "end" or message["type"] == "http.response.start":
                await send(message)

        return sending


@dataclass
class Session:
    """A session with an item that is held, and one that is not."""

    noted: list[tuple[str, str, bytes, int]] = field(default_factory=list)
    held: bool = False
    """Whether it holds an item."""
    left: bool = True
    """Whether there is one to take."""
    taken: list[int] = field(default_factory=list)
    """How many were asked for, each time."""
    error: Exception | None = None

    dataset_id = DATASET_ID

    def item_of(self, sample_id):
        return {MINE: "item-1", LOST: "item-2"}.get(sample_id)

    def open(self, count):
        if self.error is not None:
            raise self.error
        if count and not self.held:
            self.taken.append(count)
            self.held = self.left
        return MINE if self.held else None

    def holds(self, item):
        return item == "item-1"

    def has_image(self, key):
        return key in (
            "one.png",
            "gone.png",
            "folder/two words.png",
            "turned.jpg",
            "slow.tif",
            "a.tar/one.png",
            "../secret.png",
        )

    def log(self, *what):
        self.noted.append(what)


@dataclass
class Guarded:
    behind: Behind
    session: Session
    folder: Path
    store: Store

    def client(self, *, peer="127.0.0.1", logged_in=True, base="http://127.0.0.1", **settings) -> TestClient:
        values = {
            "queue": "q", "reviewer": "ann", "dataset": DATASET, "port": 80, "token_sha256": token_hash(TOKEN),
            "cookie_key": "key",
        }  # fmt: skip
        guard = Guard(self.behind, GuardSettings(**(values | settings)), self.session, self.store)
        client = TestClient(guard, base, client=(peer, 50_000), headers=HEADERS, follow_redirects=False)
        if logged_in:
            assert client.get("/", params={"token": TOKEN}).status_code == 303
        return client

    def reached(self) -> list[str]:
        return [path for _, path, _ in self.behind.seen]


@pytest.fixture
def guarded(tmp_path) -> Guarded:
    folder = tmp_path / "images"
    (folder / "folder").mkdir(parents=True)
    for name in ("one.png", "folder/two words.png", "other.png"):
        draw(1).save(folder / name)
    draw(1).save(tmp_path / "secret.png")
    return Guarded(Behind(), Session(), folder, LocalStore(folder))


@pytest.fixture
def client(guarded) -> TestClient:
    return guarded.client()


def as_json(value) -> bytes:
    return json.dumps(value).encode()
