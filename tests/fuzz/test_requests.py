"""Whatever a request says, the guard answers it by a status for people, and never fails itself.

`make fuzz` sends many; a few are sent always. `SEED=n` sends those that start at another seed.
"""

import asyncio
import json
import os
import random
from urllib.parse import urlencode

from starlette.testclient import TestClient

from tests.review_ui.guard.conftest import (  # noqa: F401 - `guarded` is a fixture
    DATASET,
    DATASET_ID,
    LABEL,
    LOST,
    MINE,
    TOKEN,
    guarded,
)
from vouch_labels.review_ui.guard.app import find_route
from vouch_labels.review_ui.guard.requests import BUILT_IN, OPERATORS, PANEL, PANEL_METHODS

COUNT = 5_000
FEW = 150
ANSWERS = {200, 206, 303, 307, 400, 401, 403, 404, 408, 413, 415, 416, 421, 423, 429}

PATHS = [
    "/", f"/datasets/{DATASET}", "/datasets/coco", "/assets/x.js", "/fiftyone", "/media", "/plugins", "/vouch/login",
    "/vouch/open", "/vouch/opening.js", "/events", "/graphql", "/operators", "/operators/execute",
    "/operators/execute/generator", "/operators/resolve-type", "/operators/resolve-placements",
    f"/dataset/{DATASET_ID}/sample/{MINE}", f"/dataset/{DATASET}/sample/{LOST}",
    f"/dataset/{DATASET}/sample/{MINE}/question.detections/{LABEL}",
]  # fmt: skip
METHODS = ["GET", "POST", "PATCH", "HEAD", "PUT", "DELETE", "OPTIONS", "get", "X"]
TYPES = [
    "application/json", "application/json-patch+json", "text/event-stream", "application/json; charset=x", "text/plain",
    "application/x-www-form-urlencoded", "", "\xff", "application/json,",
]  # fmt: skip
TEXTS = [
    "", "a", "vouch-q-ann", "vouch-q-ben", DATASET_ID, MINE, "\0", "\u0085", "ä" * 50, "../../etc/passwd",
    "/vouch/q/one.png", "fiftyone.core.stages.Mongo", "fiftyone.core.stages.Limit", "subprocess.Popen",
    "1e999", "{" * 40, "question", TOKEN, "/question/detections/0", "__init__", "\ud800",
]  # fmt: skip
KEYS = [
    "query", "variables", "operationName", "operator_uri", "params", "dataset_name", "dataset", "view", "extended",
    "_cls", "$where", "filters", "initializer", "op", "path", "value", "from", "item", "__method__", "panel_state",
    "delegated", "mask_path", "events", "subscription",
]  # fmt: skip
QUERIES = [
    "{ version }", "query Q($a: String) { dataset(name: $a) { name } }", "{ ...F } fragment F on Query { ...F }", "{",
    'mutation { setView(view: [{_cls: "x"}]) }', "query A { version } query B { version }", "subscription { x }",
    "{ datasets(search: $s) { total } }", "{ a: samples(dataset: [[[1]]], view: {b: $v}) { x } }", "type A { b: C }",
    "{ dataset(name: 99999999999999999999999999999) { x } }", '{ samples(view: """x""") { y } }', "{ x(a: E) }",
]  # fmt: skip
URIS = [
    PANEL,
    *BUILT_IN,
    *(f"@vouch/review/{name}" for name in OPERATORS),
    "@voxel51/operators/list_files",
    "@vouch/review",
]


class Maker:
    """Makes the request of a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0):
        """Any JSON, such as the guard looks for and such as it does not."""
        kind = self.random.randrange(8 if depth < 4 else 5)
        if kind == 0:
            return self.random.choice([None, True, False])
        if kind == 1:
            return self.random.choice([0, -1, 2**80, 1.5, float("nan"), float("inf"), 10**300])
        if kind < 5:
            return self.random.choice(TEXTS)
        if kind == 5:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice(KEYS): self.value(depth + 1) for _ in range(self.random.randrange(5))}

    def body(self, path: str) -> bytes:
        """A body for a path: a sound one with a part of it changed, or anything."""
        kind = self.random.randrange(4)
        if kind == 0:
            return self.random.randbytes(self.random.randrange(200))
        content = self.value()
        if kind > 1 and path == "/graphql":
            content = {"query": self.random.choice([*QUERIES, self.value()]), "variables": self.value()}
        elif kind > 1 and path.startswith("/operators/"):
            method = self.random.choice([*PANEL_METHODS, "__init__", self.value()])
            params = self.random.choice([{"__method__": method, "panel_id": "p"}, self.value()])
            content = {"operator_uri": self.random.choice([*URIS, self.value()]), "params": params}
        elif kind > 1 and path.startswith("/dataset/"):
            path_ = self.random.choice([*TEXTS, self.value()])
            change = {"op": self.random.choice(["add", "remove", self.value()]), "path": path_, "value": self.value()}
            content = [change, self.value()][: self.random.randrange(1, 3)]
        text = json.dumps(content, ensure_ascii=self.random.random() < 0.5).encode(errors="surrogatepass")
        return text if kind < 3 else self.damaged(text)

    def damaged(self, data: bytes) -> bytes:
        """Some bytes of it are changed, left out or doubled."""
        changed = bytearray(data)
        for _ in range(self.random.randrange(1, 4)):
            place = self.random.randrange(len(changed) + 1)
            changed[place : place + self.random.randrange(3)] = self.random.randbytes(self.random.randrange(3))
        return bytes(changed)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of the review's own page, some of them changed or left out."""
        sound = {"host": "127.0.0.1", "origin": "http://127.0.0.1", "content-type": self.random.choice(TYPES)}
        odd = [
            "host",
            "origin",
            "content-type",
            "content-length",
            "cookie",
            "sec-fetch-site",
            "x-forwarded-for",
            "range",
        ]
        for name in self.random.choices(odd, k=self.random.randrange(3)):
            if self.random.random() < 0.3:
                sound.pop(name, None)
            else:
                sound[name] = self.random.choice(
                    [*TEXTS, "bytes=0-", "bytes=9-1", "same-origin", "\xb2", "-1", "[::1", "a,b"]
                )
        return [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in sound.items()]

    def path(self) -> str:
        path = self.random.choice(PATHS)
        if self.random.random() < 0.2:
            path = self.damaged(path.encode()).decode("utf-8", "replace")
        return path

    def query(self) -> bytes:
        """A query, most often of what the guard looks for."""
        names = ("filepath", "token", "id", "x")
        asked = [(self.random.choice(names), self.random.choice(TEXTS)) for _ in range(self.random.randrange(3))]
        text = urlencode(asked, errors="surrogatepass").encode()
        return text if self.random.random() < 0.8 else self.damaged(text)


async def ask(client: TestClient, made: Maker) -> tuple[str, str, int]:
    """Send a request to the guard itself, as a server does; returns its method, its path and the status."""
    method, path = made.random.choice(METHODS), made.path()
    if made.random.random() < 0.6:
        method = next((one for one in ("GET", "POST", "PATCH") if find_route(one, path)), method)
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    headers = made.headers()
    if made.random.random() < 0.95:
        headers.append((b"cookie", cookie.encode()))
    scope = {
        "type": "http", "method": method, "path": path, "query_string": made.query(), "headers": headers,
        "client": ("127.0.0.1", 1), "scheme": "http", "server": ("127.0.0.1", 80), "http_version": "1.1",
    }  # fmt: skip
    parts = [{"type": "http.request", "body": made.body(path), "more_body": False}]
    answered: list[int] = []

    async def receive():
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    await client.app(scope, receive, send)
    [status] = answered
    return method, path, status


def test_any_request_gets_an_answer(guarded):  # noqa: F811 - the fixture
    count = int(COUNT * float(os.environ["FUZZ"])) if "FUZZ" in os.environ else FEW
    first = int(os.environ.get("SEED", "0"))
    guarded.behind.answer = {"operators": [], "placements": [], "plugins": []}
    client = guarded.client()
    passed = set()
    for seed in range(first, first + count):
        before = len(guarded.behind.seen)
        method, path, status = asyncio.run(ask(client, Maker(seed)))
        assert status in ANSWERS, f"seed {seed}: {method} {path!r} was answered by {status}"
        if len(guarded.behind.seen) > before:
            passed.add(path)
            assert status == 200, f"seed {seed}"
    # Enough of them are sound for FiftyOne to be asked; few may hold no sound operator.
    assert passed
    assert "/operators/execute" in passed or count <= FEW
