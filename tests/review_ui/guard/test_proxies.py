"""Whom a request comes from, by the word of proxies that are trusted."""

import pytest
from starlette.requests import Request

from review_ui.guard.proxies import Proxies

PROXIES = Proxies(("10.0.0.0/24", "fd00::7"))


def asked(peer: str | None, *forwarded: str, header: str = "x-forwarded-for") -> Request:
    headers = [(header.encode(), value.encode("latin-1")) for value in forwarded]
    client = None if peer is None else (peer, 50_000)
    return Request({"type": "http", "headers": headers, "client": client})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.7", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.7", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.7", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.7", ["203.0.113.9, 198.51.100.1, 10.0.0.8"], "198.51.100.1"),
        ("10.0.0.7", ["198.51.100.1", "10.0.0.8"], "198.51.100.1"),
        ("10.0.0.7", ["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        ("10.0.0.7", [], "10.0.0.7"),
        ("10.0.0.7", [""], "10.0.0.7"),
        ("10.0.0.7", ["198.51.100.1, unknown"], "10.0.0.7"),
        ("10.0.0.7", ["198.51.100.1, x" + "1" * 5000], "10.0.0.7"),
        ("10.0.0.7", ["198.51.100.1, unknown, 10.0.0.8"], "10.0.0.8"),
        ("10.0.0.7", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.7", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.7", ["2001:DB8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.7", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::7", ["198.51.100.1, ::ffff:10.0.0.8"], "198.51.100.1"),
        ("10.0.1.7", ["198.51.100.1"], "10.0.1.7"),
        ("127.0.0.1", ["198.51.100.1", "10.0.0.7"], "127.0.0.1"),
        ("fd00::8", ["198.51.100.1"], "fd00::8"),
        ("testclient", ["198.51.100.1"], "testclient"),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_the_right_most_that_is_no_trusted_proxy(peer, forwarded, client):
    assert PROXIES.client(asked(peer, *forwarded)) == client


@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "fd00::7"])
def test_a_proxy_says_that_it_was_https(peer):
    assert PROXIES.is_https(asked(peer, "https", header="x-forwarded-proto"))
    assert not PROXIES.is_https(asked(peer, "httpsx", header="x-forwarded-proto"))


@pytest.mark.parametrize("peer", ["10.0.1.7", "127.0.0.1", "fd00::8", "testclient", None])
def test_nobody_else_does(peer):
    assert not PROXIES.is_https(asked(peer, "https", header="x-forwarded-proto"))
    assert not PROXIES.is_proxy(asked(peer))
