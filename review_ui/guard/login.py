"""Lets the reviewer of this desk in: by a token, which becomes a signed cookie, or by the word of a trusted proxy."""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from review_ui.guard.login_page import login_page, moved_page
from review_ui.guard.proxies import Proxies
from review_ui.guard.rate import Failures
from review_ui.guard.refusal import RefusedError
from review_ui.guard.settings import GuardSettings

PATH: Final = "/vouch/login"
MOST_BYTES: Final = 4096

logger = logging.getLogger(__name__)


def token_hash(token: str) -> str:
    """Hex of SHA-256 of a token; tokens are long and random, so a slow hash would protect nothing more."""
    return hashlib.sha256(token.encode()).hexdigest()


class Login:
    """Knows who is in."""

    def __init__(
        self, settings: GuardSettings, failures: Failures | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Take the settings, where failures are counted, and a clock in seconds since 1970."""
        self._settings = settings
        self._failures = failures or Failures()
        self._clock = clock
        self._proxies = Proxies(settings.trusted_proxies)
        self.cookie = f"vouch-review-{settings.port}"

    def is_in(self, request: Request) -> bool:
        """Whether a request comes from this desk's reviewer.

        Raises:
            RefusedError: With 403, when a trusted proxy says that it comes from somebody else.
        """
        if self._settings.trust_header is not None and self._proxies.is_proxy(request):
            named = request.headers.getlist(self._settings.trust_header)
            if len(named) == 1 and named[0] == self._settings.reviewer:
                return True
            if named:
                raise RefusedError(403, "this is another reviewer's desk; ask for the address of your own")
        return self._is_signed(request.cookies.get(self.cookie, ""))

    async def answer(self, request: Request) -> Response | None:
        """Answer what is about logging in; None for all other requests."""
        if request.scope["path"] == PATH and request.method == "POST":
            return self._try(request, await _field(request, "token"))
        if request.scope["path"] == PATH and request.method in ("GET", "HEAD"):
            return HTMLResponse(login_page(self._settings.reviewer))
        if request.scope["path"] == "/" and request.method == "GET" and "token" in request.query_params:
            return self._try(request, request.query_params["token"])
        return None

    def ask(self, request: Request) -> Response:
        """Answer a request of nobody we know: the login page for a browser's tab, else a line."""
        wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if wants_page:
            return HTMLResponse(login_page(self._settings.reviewer), 401)
        return RefusedError(401, "log in first: open the address with the token that vouch review printed").response()

    def _try(self, request: Request, token: str) -> Response:
        client = self._proxies.client(request)
        # The same work is done for every token, and none is looked at while the client must wait.
        wait = self._failures.wait(client)
        right = hmac.compare_digest(token_hash(token), self._settings.token_sha256)
        if wait:
            return HTMLResponse(
                login_page(self._settings.reviewer, f"Too many wrong tokens; try again in {wait} seconds."),
                429,
                {"Retry-After": str(wait)},
            )
        if not right:
            self._failures.add(client)
            logger.warning("a wrong token from %s", client or "an unknown client")
            return HTMLResponse(login_page(self._settings.reviewer, "That is not this reviewer's token."), 401)
        return self._welcome(request)

    def _welcome(self, request: Request) -> Response:
        home = f"/datasets/{self._settings.desk}"
        answer: Response = RedirectResponse(home, 303)
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A browser keeps a strict cookie from the whole chain of redirects that a foreign page began.
            answer = HTMLResponse(moved_page(home))
        until = int(self._clock() + self._settings.session_hours * 3600)
        answer.set_cookie(
            self.cookie,
            f"{until}.{self._sign(until)}",
            max_age=int(self._settings.session_hours * 3600),
            path="/",
            secure=self._proxies.is_https(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    def _is_signed(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) < 16 and signature.isascii()):
            return False
        return hmac.compare_digest(signature, self._sign(int(until))) and int(until) > self._clock()

    def _sign(self, until: int) -> str:
        said = f"{self._settings.desk}\n{self._settings.token_sha256}\n{until}"
        return hmac.new(self._settings.session_key.encode(), said.encode(), hashlib.sha256).hexdigest()


async def _field(request: Request, name: str) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise RefusedError(413, "that is no token")
    try:
        fields = parse_qs(body.decode(errors="replace"), max_num_fields=10)
    except ValueError:
        raise RefusedError(400, "that is no token") from None
    return fields.get(name, [""])[0].strip()
