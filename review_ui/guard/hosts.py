"""Tells requests that a foreign page had a browser make: by Host, by Origin, by what the browser says of their site."""

import ipaddress
from typing import Final

from starlette.datastructures import Headers

from review_ui.guard.refusal import RefusedError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
SAFE: Final = ("GET", "HEAD")


class Hosts:
    """The names that this server goes by."""

    def __init__(self, others: tuple[str, ...]) -> None:
        """Take the names beside those of the loopback interface."""
        self._names = {name.lower().strip("[]").rstrip(".") for name in (*LOOPBACK, *others)}

    def check_host(self, headers: Headers) -> None:
        """Refuse a Host that is not ours; a foreign name that resolves to us would make its pages ours.

        Raises:
            RefusedError: With 421.
        """
        named = headers.getlist("host")
        if len(named) != 1 or host_name(named[0]) not in self._names:
            raise RefusedError(421, "this server does not go by that name; open the address that vouch review printed")

    def check_site(self, method: str, headers: Headers) -> None:
        """Refuse what another site's page asks for, and changes whose origin nobody tells.

        Following a link to a page is no more than looking; what a page loads, sends or listens to must be our own.

        Args:
            method: The request's.
            headers: The request's.

        Raises:
            RefusedError: With 403.
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
