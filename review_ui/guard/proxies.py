"""What a trusted proxy says of its client: the address, and whether it came by HTTPS; nobody else is believed."""

import ipaddress
from collections.abc import Iterator, Sequence

from starlette.requests import Request

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies that are believed."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Take their addresses or networks."""
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def is_proxy(self, request: Request) -> bool:
        """Whether a trusted proxy handed a request on."""
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
        for told in _from_the_right(request.headers.getlist("x-forwarded-for")):
            address = _address(told)
            if not self._trusts(found) or address is None:
                break
            found = address
        return str(found)

    def is_https(self, request: Request) -> bool:
        """Whether the browser came by HTTPS: its own page's Origin says so, or a trusted proxy."""
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
