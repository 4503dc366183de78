"""The guard before FiftyOne's server: checks every request in one order, and changes what FiftyOne answers.

Paths that are not in the table of routes are refused. In answers, lists get shorter and tracebacks go; a change is
noted before its answer is sent.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeVar

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vouch_labels.review_ui.guard.auth import SAFE, Hosts, Login
from vouch_labels.review_ui.guard.media import Media
from vouch_labels.review_ui.guard.pages import OPEN, PAUSE, SCRIPTS, in_app_page, opening_page, script
from vouch_labels.review_ui.guard.requests import (
    as_object,
    check_changes,
    check_field,
    check_graphql,
    check_operator,
    check_values,
    only_allowed_operators,
    only_allowed_placements,
    only_our_plugin,
    parse_json,
    read_body,
    replay,
    without_operator_traceback,
)
from vouch_labels.review_ui.guard.settings import GuardedSession, GuardSettings, RefusedError, policy, with_headers
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

_Asked = TypeVar("_Asked")
_Given = TypeVar("_Given")

_PATCH: Final = "application/json-patch+json"
_LISTENING: Final = ("application/json", "text/event-stream")
"""The App names what it wants to hear, not what it sends; no foreign page could send that unasked either."""
_FILTERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "operators": only_allowed_operators,
    "placements": only_allowed_placements,
    "plugins": only_our_plugin,
    "execute": without_operator_traceback,
}

Kind = Literal[
    "home", "page", "open", "script", "file", "config", "media", "events", "graphql", "operators", "placements",
    "execute", "plugins", "plugin_file", "patch_sample", "patch_label",
]  # fmt: skip

_NAME: Final = r"[^/\\\0]+"
_ID: Final = "[0-9a-f]{24}"
_FILE: Final = r"[\w@.-]+\.(?:js|css|wasm|svg|png|ico|json|woff2?|ttf|map)"


class Route(NamedTuple):
    """What a request is about."""

    kind: Kind
    named: dict[str, str]
    """Parts of the path."""


class Guard:
    """An ASGI application around FiftyOne's.

    The order: Host, Origin and site of the page; login; the table of paths; what is in the request. Whatever is not
    allowed by name is refused, websockets and CORS altogether.
    """

    def __init__(self, app: ASGIApp, settings: GuardSettings, session: GuardedSession, store: Store) -> None:
        """Take FiftyOne's application, the settings, the session, and where the images lie."""
        self._app, self._settings, self._session = app, settings, session
        self._dataset = (settings.dataset, session.dataset_id)
        self._hosts = Hosts(settings.hosts)
        self._login = Login(settings)
        self._media = Media(store, session, settings)
        self._csp = policy(settings.image_origin)
        self._filters = _FILTERS | {"page": in_app_page(settings)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let FiftyOne answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, with_headers(send, scope["path"], self._csp))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, send)
        except RefusedError as refused:
            logger.info("refused: %s %r: %d %s", scope["method"], scope["path"], refused.status, refused.message)
            answer = refused.response()
        if answer is not None:
            await answer(scope, receive, send)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """Our own answer; None when FiftyOne has given one."""
        if not request.scope["query_string"].isascii():
            raise RefusedError(400, "this is no address")
        self._hosts.check_host(request.headers)
        self._hosts.check_site(request.method, request.headers)
        answer = await self._login.answer(request)
        if answer is not None:
            return answer
        if not self._login.is_in(request):
            return self._login.ask(request)
        route = find_route(request.method, request.scope["path"])
        if route is None:
            raise RefusedError(403, "this is not a part of reviewing")
        if request.method in SAFE:
            return await self._read(request, route, send)
        return await self._change(request, route, send)

    async def _read(self, request: Request, route: Route, send: Send) -> Response | None:
        if route.kind == "home" or (route.kind == "page" and route.named["dataset"] != self._settings.dataset):
            return RedirectResponse(f"/datasets/{self._settings.dataset}", 303)
        if route.kind == "media":
            return await self._media.answer(request)
        if route.kind == "script":
            return FileResponse(script(route.named["script"]), media_type="text/javascript")
        if route.kind == "page" and (answer := await self._opening(request)) is not None:
            return answer
        await self._pass(request, b"", send, route)
        return None

    async def _opening(self, request: Request) -> Response | None:
        """Lead to the item that comes first; None: the App's page is asked for as it is.

        Nothing is taken for a page that nobody may ever see: a browser loads some in advance, and others in the
        background. The page that has a batch taken waits until it is on the screen.
        """
        home = f"/datasets/{self._settings.dataset}"
        asked = request.query_params.get("id")
        if asked is not None:
            if re.fullmatch(_ID, asked) and await self._ask(self._session.item_of, asked) is not None:
                return None
            return RedirectResponse(home, 303)
        if request.url.query:
            return None
        first = await self._ask(self._session.open, 0)
        return RedirectResponse(f"{home}?id={first}", 303) if first else HTMLResponse(opening_page(self._settings))

    async def _open(self) -> Response:
        """Take a batch where the session has none; the answer says where to go."""
        first = await self._ask(self._session.open, self._settings.batch)
        return JSONResponse({"address": f"/datasets/{self._settings.dataset}?" + (f"id={first}" if first else PAUSE)})

    async def _ask(self, question: Callable[[_Asked], _Given], about: _Asked) -> _Given:
        try:
            return await asyncio.to_thread(question, about)
        except VouchError as error:
            raise RefusedError(503, str(error)) from error

    async def _change(self, request: Request, route: Route, send: Send) -> Response | None:
        body = await read_body(request)
        if route.kind == "open":
            parse_json(request, body)
            return await self._open()
        if route.kind in ("patch_sample", "patch_label"):
            return await self._write(request, route, body, send)
        content = as_object(parse_json(request, body, *(_LISTENING if route.kind == "events" else ())))
        check_values(content, self._dataset)
        if route.kind == "graphql":
            body = json.dumps(check_graphql(content, self._dataset)).encode()
        elif route.kind == "events":
            # Only browsers: other programs would send a state of their own.
            start = content.get("initializer")
            if start is not None and (not isinstance(start, dict) or "_CLS" in start):
                raise RefusedError(403, "only the App listens here")
        elif route.kind == "execute":
            asked = check_operator(content)
            body = json.dumps(asked).encode()
            if request.scope["path"].startswith("/operators/execute"):
                kept = json.dumps({name: asked.get(name) for name in ("operator_uri", "params")}).encode()
                await self._pass_logged(request, body, kept, send, route)
                return None
        await self._pass(request, body, send, route)
        return None

    async def _write(self, request: Request, route: Route, body: bytes, send: Send) -> Response | None:
        try:
            await self._check_write(request, route, body)
        except RefusedError as refused:
            await self._log(request, body, refused.status)
            raise
        await self._pass_logged(request, body, body, send, route)
        return None

    async def _check_write(self, request: Request, route: Route, body: bytes) -> None:
        if request.query_params:
            raise RefusedError(403, "changes are made to samples themselves")
        # FiftyOne takes a name for an id as well.
        if route.named["dataset"] not in self._dataset:
            raise RefusedError(403, "only your own session can be changed")
        if route.kind == "patch_label":
            check_field(route.named["field"])
        types = (_PATCH,) if route.kind == "patch_sample" else (_PATCH, "application/json")
        check_changes(parse_json(request, body, *types), route.kind == "patch_sample")
        item = await self._ask(self._session.item_of, route.named["sample"])
        if item is None:
            raise RefusedError(404, "this item is no longer in your session; take a new batch")
        if not await self._ask(self._session.holds, item):
            raise RefusedError(423, "this item is no longer yours; take a new batch (the change is kept in the log)")

    async def _log(self, request: Request, body: bytes, status: int) -> None:
        await asyncio.to_thread(self._session.log, request.method, request.scope["path"], body, status)

    async def _pass_logged(self, request: Request, body: bytes, kept: bytes, send: Send, route: Route) -> None:
        """Have FiftyOne answer, and note the request and its status, also when it gives no answer."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._log(request, kept, message["status"])
            await send(message)

        try:
            await self._pass(request, body, sending, route)
        except RefusedError as refused:
            await self._log(request, kept, refused.status)
            raise

    async def _pass(self, request: Request, body: bytes, send: Send, route: Route) -> None:
        change = self._filters.get(route.kind)
        sending = _Sending(send) if change is None else _Filtered(send, change)
        try:
            await self._app(request.scope, replay(body, request.receive), sending)
        except Exception:
            # FiftyOne's own last resort answers first, and then raises once more.
            logger.exception("FiftyOne failed at %s %r", request.method, request.scope["path"])
        if not sending.started:
            raise RefusedError(500, "FiftyOne failed at this; the log of the review says why")


_TABLE: Final[tuple[tuple[str, str, Kind], ...]] = (
    ("GET", r"/", "home"),
    ("GET", rf"/datasets/(?P<dataset>{_NAME})", "page"),
    ("GET", rf"(?:/datasets)?/assets/{_FILE}", "file"),
    ("GET", r"(?:/datasets)?/(?:favicon\.ico|model_evaluation\.svg)", "file"),
    ("GET", r"/(?:fiftyone|features)", "config"),
    ("GET", r"/plugins", "plugins"),
    ("GET", r"/plugins/(?:[\w@-]+/)*index\.umd\.js", "plugin_file"),
    ("GET", r"/media", "media"),
    ("GET", rf"/vouch/(?P<script>{'|'.join(SCRIPTS)})\.js", "script"),
    ("POST", re.escape(OPEN), "open"),
    ("POST", r"/events", "events"),
    ("POST", r"/graphql", "graphql"),
    ("POST", r"/operators", "operators"),
    ("POST", r"/operators/resolve-placements", "placements"),
    ("POST", r"/operators/(?:execute|execute/generator|resolve-type|resolve-execution-options)", "execute"),
    ("PATCH", rf"/dataset/(?P<dataset>{_NAME})/sample/(?P<sample>[0-9a-f]{{24}})", "patch_sample"),
    (
        "PATCH",
        rf"/dataset/(?P<dataset>{_NAME})/sample/(?P<sample>[0-9a-f]{{24}})/(?P<field>[\w.]+)/(?P<label>[0-9a-f]{{24}})",
        "patch_label",
    ),
)


def find_route(method: str, path: str) -> Route | None:
    """Look up the route of a decoded path; HEAD asks what GET does."""
    asked = "GET" if method == "HEAD" else method
    if ".." in path.split("/"):
        return None
    for allowed, pattern, kind in _TABLE:
        if asked == allowed and (found := re.fullmatch(pattern, path, re.ASCII)):
            return Route(kind, found.groupdict())
    return None


class _Sending:
    """Passes an answer on, and knows whether it has started; that of a failure is replaced."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = self._failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 500:
            self.started = self._failed = True
            body = json.dumps({"error": "FiftyOne failed at this; the log of the review says why"}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await self._send({"type": message["type"], "status": message["status"], "headers": headers})
            await self._send({"type": "http.response.body", "body": body})
        elif not self._failed:
            self.started = True
            await self._send(message)


class _Filtered(_Sending):
    """Rewrites the whole body of an answer that is well."""

    def __init__(self, send: Send, change: Callable[[bytes], bytes]) -> None:
        super().__init__(send)
        self._change = change
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._parts.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._finish(self._start)
        else:
            await super().__call__(message)

    async def _finish(self, start: Message) -> None:
        whole = b"".join(self._parts)
        body = self._change(whole) if whole else whole  # HEAD has none
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        self.started = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})
