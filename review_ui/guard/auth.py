"""Says whose request it is: not one that a foreign page had a browser make, and by a reviewer who has logged in.

Host, Origin and Sec-Fetch-Site tell the first. A reviewer logs in by a token, which becomes a signed cookie, or at a
trusted proxy, which gives the client's address and whether it came by HTTPS; nobody else is trusted. Guessing is slowed
down. The login page names no other host and runs no script. Its own address may hold a token, so it sends it to nobody,
but for the scheme and host that a form's Origin needs.
"""

import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from vouch_labels.review_ui.guard.requests import read_body
from vouch_labels.review_ui.guard.settings import GuardSettings, RefusedError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
SAFE: Final = ("GET", "HEAD")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
logger = logging.getLogger(__name__)

PATH: Final = "/vouch/login"
MOST_BYTES: Final = 4096

TRIES: Final = 10
WINDOW_S: Final = 300.0
MOST_PEERS: Final = 10_000


class Hosts:
    """The names that this server goes by."""

    def __init__(self, others: tuple[str, ...]) -> None:
        """Take the names beside those of the loopback interface."""
        self._names = {name.lower().strip("[]").rstrip(".") for name in (*LOOPBACK, *others)}

    def check_host(self, headers: Headers) -> None:
        """Refuse (421) a Host that is not ours; a foreign name that resolves to us would make its pages ours."""
        named = headers.getlist("host")
        if len(named) != 1 or host_name(named[0]) not in self._names:
            raise RefusedError(421, "this server does not go by that name; open the address that vouch review printed")

    def check_site(self, method: str, headers: Headers) -> None:
        """Refuse (403) what another site's page asks for, and changes whose origin is not given.

        Following a link to a page is no more than looking; what a page loads, sends or listens to must be our own.
        """
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or rest.lower() != headers["host"].lower():
                raise RefusedError(403, "another site's page asked for this; nothing was done")
        if method in SAFE:
            followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if site not in (None, "same-origin", "none") and not followed:
                raise RefusedError(403, "another site's page asked for this")
        elif site not in (None, "same-origin") or (site is None and origin is None):
            raise RefusedError(403, "changes need an Origin or Sec-Fetch-Site header of this server's own pages")


def host_name(host: str) -> str:
    """Name of a Host header without port, brackets and case; empty where it is none."""
    text = host.strip().lower()
    if text.startswith("["):
        inside, bracket, port = text[1:].partition("]")
        return inside if bracket and (not port or (port[:1] == ":" and port[1:].isdigit())) else ""
    name, colon, port = text.partition(":")
    return name.rstrip(".") if not colon or port.isdigit() else ""


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Proxies:
    """The trusted proxies."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Take their addresses or networks."""
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def is_proxy(self, request: Request) -> bool:
        """Whether a trusted proxy forwarded a request."""
        peer = _address(_peer(request))
        return peer is not None and self._trusts(peer)

    def client(self, request: Request) -> str:
        """Address of whom a request comes from, empty if unknown; by this one, wrong tokens are counted.

        Each proxy adds to the right of X-Forwarded-For whom it was asked by. What is left of the first that is no
        trusted proxy may be made up.
        """
        found = _address(_peer(request))
        if found is None:
            return _peer(request)
        for named in _from_the_right(request.headers.getlist("x-forwarded-for")):
            address = _address(named)
            if not self._trusts(found) or address is None:
                break
            found = address
        return str(found)

    def is_https(self, request: Request) -> bool:
        """Whether the browser came by HTTPS: by its own page's Origin, or a trusted proxy."""
        if request.headers.get("origin", "").startswith("https://"):
            return True
        return self.is_proxy(request) and "https" in _from_the_right(request.headers.getlist("x-forwarded-proto"))

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    """Entries of a header that may be given many times, the last first."""
    for value in reversed(values):
        for entry in reversed(value.split(",")):
            yield entry.strip().lower()


def _address(text: str) -> Address | None:
    """An address without its port; one of IPv4 within IPv6, as sockets for both have it, is the one of IPv4."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def token_hash(token: str) -> str:
    """Hex of SHA-256 of a token; tokens are long and random, so a slow hash would protect nothing more."""
    return hashlib.sha256(token.encode()).hexdigest()


class Failures:
    """Counts failed logins by peer within a sliding window; used by the event loop's one thread."""

    def __init__(
        self, tries: int = TRIES, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take how many failures a window holds, its length in seconds, and a clock in seconds."""
        self._tries, self._window_s, self._clock = tries, window_s, clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, peer: str) -> int:
        """Seconds until a peer may try again; 0: now."""
        failed, now = self._failed.get(peer, deque[float]()), self._clock()
        while failed and failed[0] <= now - self._window_s:
            failed.popleft()
        if not failed:
            self._failed.pop(peer, None)
        if len(failed) < self._tries:
            return 0
        return max(1, math.ceil(failed[0] + self._window_s - now))

    def add(self, peer: str) -> None:
        """Note a failure."""
        self._failed.setdefault(peer, deque(maxlen=self._tries)).append(self._clock())
        self._failed.move_to_end(peer)
        while len(self._failed) > MOST_PEERS:
            self._failed.popitem(last=False)


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
        """Whether a request comes from this session's reviewer; 403 when a trusted proxy names another one."""
        if self._settings.trust_header is not None and self._proxies.is_proxy(request):
            named = request.headers.getlist(self._settings.trust_header)
            if len(named) == 1 and named[0] == self._settings.reviewer:
                return True
            if named:
                raise RefusedError(403, "this is another reviewer's session; ask for the address of your own")
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
        """Answer a request without a login: the login page for a browser's tab, else a line."""
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(login_page(self._settings.reviewer), 401)
        return RefusedError(401, "log in first: open the address with the token that vouch review printed").response()

    def _try(self, request: Request, token: str) -> Response:
        client = self._proxies.client(request)
        # The same work is done for every token, and none is accepted while the client must wait.
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
        home = f"/datasets/{self._settings.dataset}"
        answer: Response = RedirectResponse(home, 303)
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A browser keeps a strict cookie from the whole chain of redirects that a foreign page began.
            answer = HTMLResponse(moved_page(home))
        until = int(self._clock() + self._settings.login_hours * 3600)
        answer.set_cookie(
            self.cookie,
            f"{until}.{self._sign(until)}",
            max_age=int(self._settings.login_hours * 3600),
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
        message = f"{self._settings.dataset}\n{self._settings.token_sha256}\n{until}"
        return hmac.new(self._settings.cookie_key.encode(), message.encode(), hashlib.sha256).hexdigest()


async def _field(request: Request, name: str) -> str:
    body = await read_body(request, MOST_BYTES)
    try:
        fields = parse_qs(body.decode(errors="replace"), max_num_fields=10)
    except ValueError:
        raise RefusedError(400, "that is no token") from None
    return fields.get(name, [""])[0].strip()


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="strict-origin">
<title>Vouch review</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 100vh; margin: 0 }}
main {{ width: min(26rem, 90vw) }}
h1 {{ font-size: 1.4rem; margin: 0 0 .5rem }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
input, button {{ padding: .55rem .7rem; margin-top: .4rem; border: 1px solid #8888; border-radius: .4rem }}
button {{ margin-top: .8rem; background: #2458d3; color: #fff; border: 0; cursor: pointer }}
.problem {{ color: #c62828; font-weight: 600 }}
small {{ opacity: .75 }}
</style>
</head>
<body>
<main>
<h1>Vouch review</h1>
<p>This is the review session of <b>{reviewer}</b>.</p>
{problem}
<form method="post" action="/vouch/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" required autofocus>
<button type="submit">Start reviewing</button>
</form>
<p><small>The token is in the address that <code>vouch review</code> printed when it started.</small></p>
</main>
</body>
</html>
"""


def login_page(reviewer: str, problem: str = "") -> str:
    """The page, with what went wrong."""
    alert = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return _PAGE.format(reviewer=escape(reviewer), problem=alert)


def moved_page(where: str) -> str:
    """A page that only leads on."""
    return (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={escape(where)}">'
    )
