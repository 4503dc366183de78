"""What pages of other sites can have a browser do: nothing.

Whom a request comes from, by the headers of proxies that are trusted.
"""

import pytest
from starlette.requests import Request

from tests.review_ui.guard.conftest import DATASET
from vouch_labels.review_ui.guard.origin import Proxies, host_name, is_loopback

QUERY = {"query": "{ version }"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5151", "127.0.0.1.evil.example", "", "127.0.0.1:x", "[::1"]
)
def test_a_foreign_host_is_refused_even_with_a_login(guarded, host):
    client = guarded.client()
    assert client.get("/fiftyone", headers={"host": host}).status_code == 421
    assert client.get("/", params={"token": "x"}, headers={"host": host}).status_code == 421
    assert guarded.reached() == []


@pytest.mark.parametrize("host", ["localhost:5151", "LOCALHOST", "127.0.0.1:1", "[::1]:5151", "review.example.org"])
def test_our_own_names_are_accepted(guarded, host):
    client = guarded.client(hosts=("review.example.org",), logged_in=False)
    assert client.get("/fiftyone", headers={"host": host, "origin": f"http://{host}"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8080"},
        {"origin": "http://127.0.0.1", "sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1", "sec-fetch-site": "same-site"},
        {"origin": "", "sec-fetch-site": "cross-site"},
        {"origin": ""},
    ],
)
def test_a_change_from_elsewhere_is_refused(guarded, headers):
    client = guarded.client()
    assert client.post("/graphql", json=QUERY, headers=headers).status_code == 403
    assert guarded.reached() == []


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "same-origin"}])
def test_a_change_without_any_word_of_its_origin_is_refused(guarded, headers):
    client = guarded.client()
    del client.headers["origin"]
    assert client.post("/graphql", json=QUERY, headers=headers).status_code == (200 if headers else 403)


def test_a_foreign_page_can_link_to_us_but_show_or_load_nothing(guarded):
    client = guarded.client()
    del client.headers["origin"]
    site = {"sec-fetch-site": "cross-site"}
    page = f"/datasets/{DATASET}"
    link = site | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get(page, headers=link).status_code == 200
    for mode, kind in [("navigate", "iframe"), ("no-cors", "image"), ("no-cors", "script"), ("cors", "empty")]:
        headers = site | {"sec-fetch-mode": mode, "sec-fetch-dest": kind}
        assert client.get(page, headers=headers).status_code == 403


def test_every_answer_forbids_framing_sniffing_and_other_hosts(guarded, client):
    for path in ("/fiftyone", "/nothing", "/vouch/login", "/media?filepath=/vouch/q/one.png"):
        headers = client.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_websockets_and_preflights_are_refused(guarded, client):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/graphql"):
        pass
    assert client.options("/graphql").status_code == 403
    assert guarded.reached() == []


@pytest.mark.parametrize(
    ("host", "name"),
    [("a.b:80", "a.b"), ("A.B.", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("a:b", ""), ("[::1]x", ""), ("", "")],
)
def test_names_of_hosts(host, name):
    assert host_name(host) == name


def test_what_other_machines_can_reach():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.3.0.1", "::1", "localhost", "[::1]")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org")] == [False] * 4


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
def test_a_proxy_forwards_that_it_was_https(peer):
    assert PROXIES.is_https(asked(peer, "https", header="x-forwarded-proto"))
    assert not PROXIES.is_https(asked(peer, "httpsx", header="x-forwarded-proto"))


@pytest.mark.parametrize("peer", ["10.0.1.7", "127.0.0.1", "fd00::8", "testclient", None])
def test_nobody_else_does(peer):
    assert not PROXIES.is_https(asked(peer, "https", header="x-forwarded-proto"))
    assert not PROXIES.is_proxy(asked(peer))
