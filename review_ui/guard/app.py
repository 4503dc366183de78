"""The guard: checks every request before FiftyOne sees it, in one order."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from review_ui.guard.answers import filtered, told_first, without_traceback
from review_ui.guard.bodies import Desk, check_values, parse_json, read_body, replay
from review_ui.guard.graphql import check_graphql
from review_ui.guard.headers import policy, with_headers
from review_ui.guard.hosts import SAFE, Hosts
from review_ui.guard.login import Login
from review_ui.guard.media import Media
from review_ui.guard.operators import (
    check_operator,
    only_allowed_operators,
    only_allowed_placements,
    only_our_plugin,
    only_what_happened,
)
from review_ui.guard.refusal import RefusedError
from review_ui.guard.routes import Route, find_route
from review_ui.guard.seat import Seat
from review_ui.guard.settings import GuardSettings
from review_ui.guard.writes import check_changes, check_field
from tasks.store.store import Store

_PATCH: Final = "application/json-patch+json"
_LISTENING: Final = ("application/json", "text/event-stream")
"""The App names what it wants to hear, not what it sends; no foreign page could send that unasked either."""
_FILTERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "operators": only_allowed_operators,
    "placements": only_allowed_placements,
    "plugins": only_our_plugin,
    "execute": only_what_happened,
}

logger = logging.getLogger(__name__)


class Guard:
    """An ASGI application around FiftyOne's.

    The order: Host, Origin and site of the page; login; the table of paths; what is in the request. Whatever is not
    allowed by name is refused, websockets and CORS altogether.
    """

    def __init__(self, app: ASGIApp, settings: GuardSettings, seat: Seat, store: Store) -> None:
        """Take FiftyOne's application, the settings, the desk, and where the images lie."""
        self._app, self._settings, self._seat = app, settings, seat
        self._hosts = Hosts(settings.hosts)
        self._login = Login(settings)
        self._media = Media(store, seat, settings)
        self._csp = policy(settings.image_origin)

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
            logger.info("refused: %s %r: %d %s", scope["method"], scope["path"], refused.status, refused.words)
            answer = refused.response()
        if answer is not None:
            await answer(scope, receive, send)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """Our own answer; None when FiftyOne has given one."""
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
            return await self._look(request, route, send)
        return await self._change(request, route, send)

    async def _look(self, request: Request, route: Route, send: Send) -> Response | None:
        if route.kind == "home" or (route.kind == "page" and route.named["dataset"] != self._settings.desk):
            return RedirectResponse(f"/datasets/{self._settings.desk}", 303)
        if route.kind == "media":
            return await self._media.answer(request)
        await self._pass(request, b"", send, route)
        return None

    async def _change(self, request: Request, route: Route, send: Send) -> Response | None:
        body = await read_body(request)
        if route.kind in ("patch_sample", "patch_label"):
            return await self._write(request, route, body, send)
        said = parse_json(request, body, *(_LISTENING if route.kind == "events" else ()))
        desk = await self._desk()
        check_values(said, desk)
        if route.kind == "graphql":
            body = json.dumps(check_graphql(said, desk)).encode()
        elif route.kind == "events":
            _check_listener(said)
        elif route.kind == "execute":
            asked = check_operator(said)
            if request.scope["path"].startswith("/operators/execute"):
                await self._pass_kept(request, body, _short(asked), send, route)
                return None
        await self._pass(request, body, send, route)
        return None

    async def _write(self, request: Request, route: Route, body: bytes, send: Send) -> Response | None:
        try:
            await self._check_write(request, route, body)
        except RefusedError as refused:
            await self._keep(request, body, refused.status)
            raise
        await self._pass_kept(request, body, body, send, route)
        return None

    async def _check_write(self, request: Request, route: Route, body: bytes) -> None:
        if request.query_params:
            raise RefusedError(403, "changes are made to samples themselves")
        # FiftyOne takes a name for an id as well.
        if route.named["dataset"] not in await self._desk():
            raise RefusedError(403, "only your own desk can be changed")
        if route.kind == "patch_label":
            check_field(route.named["field"])
        types = (_PATCH,) if route.kind == "patch_sample" else (_PATCH, "application/json")
        check_changes(parse_json(request, body, *types), route.kind == "patch_sample")
        item = await asyncio.to_thread(self._seat.item_of, route.named["sample"])
        if item is None:
            raise RefusedError(404, "this item is no longer on your desk; take a new batch")
        if not await asyncio.to_thread(self._seat.holds, item):
            raise RefusedError(423, "this item is no longer yours; take a new batch (the change is kept in the log)")

    async def _desk(self) -> Desk:
        return (self._settings.desk, await asyncio.to_thread(self._seat.dataset_id))

    async def _keep(self, request: Request, body: bytes, status: int) -> None:
        await asyncio.to_thread(self._seat.log, request.method, request.scope["path"], body, status)

    async def _pass_kept(self, request: Request, body: bytes, kept: bytes, send: Send, route: Route) -> None:
        """Have FiftyOne answer, and note what it was asked and what became of it, also when it gives no answer."""
        try:
            sending = told_first(send, lambda status: self._keep(request, kept, status))
            await self._pass(request, body, sending, route)
        except RefusedError as refused:
            await self._keep(request, kept, refused.status)
            raise

    async def _pass(self, request: Request, body: bytes, send: Send, route: Route) -> None:
        sending = without_traceback(send)
        if route.kind in _FILTERS:
            sending = filtered(sending, _FILTERS[route.kind])
        try:
            await self._app(request.scope, replay(body, request.receive), sending)
        except Exception:
            # FiftyOne's own last resort answers first, and then raises once more.
            logger.exception("FiftyOne failed at %s %r", request.method, request.scope["path"])
        if not sending.begun:
            raise RefusedError(500, "FiftyOne failed at this; the log of the review says why")


def _check_listener(said: object) -> None:
    """Hold who listens to events to what a browser says; other programs would hand a state of their own in.

    Raises:
        RefusedError: With 403.
    """
    start = said.get("initializer") if isinstance(said, dict) else None
    if start is not None and (not isinstance(start, dict) or "_CLS" in start):
        raise RefusedError(403, "only the App listens here")


def _short(asked: dict[str, object]) -> bytes:
    return json.dumps({name: asked.get(name) for name in ("operator_uri", "params")}).encode()
