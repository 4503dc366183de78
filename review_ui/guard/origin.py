"""Refuses requests that a foreign page had a browser make (Host, Origin, Sec-Fetch-Site); trusts named proxies only.

A trusted proxy gives the client's address and whether it came by HTTPS; nobody else is trusted.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request

from vouch_labels.review_ui.guard.settings import RefusedError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
SAFE: Final = ("GET", "HEAD")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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
        if origin is not None and not self._own(origin, headers["host"]):
            raise RefusedError(403, "another site's page asked for this; nothing was done")
        if method in SAFE:
            followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if site not in (None, "same-origin", "none") and not followed:
                raise RefusedError(403, "another site's page asked for this")
        elif site not in (None, "same-origin") or (site is None and origin is None):
            raise RefusedError(403, "changes need an Origin or Sec-Fetch-Site header of this server's own pages")

    def _own(self, origin: str, host: str) -> bool:
        scheme, separator, rest = origin.partition("://")
        return scheme in ("http", "https") and bool(separator) and rest.lower() == host.lower()


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
