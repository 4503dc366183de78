"""Who may ask: tokens, cookies, hosts, proxies, origins."""

import pytest
from starlette.requests import Request

from tests.review_ui.guard.conftest import DATASET, TOKEN
from vouch_labels.review_ui.guard.auth import Failures, Login, Proxies, host_name, is_loopback, token_hash
from vouch_labels.review_ui.guard.settings import GuardSettings

HOME = f"/datasets/{DATASET}"
QUERY = {"query": "{ version }"}


def test_nobody_gets_anything_without_a_token(guarded):
    client = guarded.client(logged_in=False)
    asked = {"/media?filepath=/vouch/q/one.png": "GET", "/assets/a.js": "GET", "/etc": "GET", "/graphql": "POST",
             "/operators/execute": "POST", "/dataset/a/sample/b": "PATCH"}  # fmt: skip
    for path, method in asked.items():
        answer = client.request(method, path)
        assert answer.status_code == 401
        assert "log in" in answer.json()["error"]
    assert guarded.reached() == []


def test_a_browser_without_a_token_sees_the_login_page_and_no_other_host(guarded):
    answer = guarded.client(logged_in=False, reviewer="<b>ann").get(HOME, headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert 'type="password"' in answer.text
    assert "&lt;b&gt;ann" in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")


def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(guarded):
    client = guarded.client(logged_in=False)
    answer = client.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, HOME)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get(HOME, params="pause").status_code == 200
    assert guarded.reached() == [HOME]


def test_a_token_can_be_typed(guarded):
    client = guarded.client(logged_in=False)
    assert client.post("/vouch/login", data={"token": f" {TOKEN}\n"}).status_code == 303
    assert client.get(HOME).status_code == 200


def test_from_a_link_of_another_site_the_page_leads_on_by_itself(guarded):
    client = guarded.client(logged_in=False)
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    del client.headers["origin"]
    answer = client.get("/", params={"token": TOKEN}, headers=headers)
    assert answer.status_code == 200
    assert f"url={HOME}" in answer.text


@pytest.mark.parametrize("cookie", ["", "1.2", "99999999999.aa", "99999999999.", "x", "9" * 40 + ".a", "1²3.ü"])
def test_a_made_up_cookie_is_none(guarded, cookie):
    client = guarded.client(logged_in=False)
    headers = {"cookie": f"vouch-review-80={cookie}".encode("latin-1", "ignore")}
    assert client.get(HOME, headers=headers).status_code == 401


def test_a_login_ends_and_is_of_one_session_one_key_and_one_token(guarded):
    client = guarded.client()
    value = client.cookies["vouch-review-80"]
    for changes in ({"dataset": "vouch-q-ben"}, {"cookie_key": "other"}, {"token_sha256": token_hash("another")}):
        other = guarded.client(logged_in=False, **changes)
        other.cookies.set("vouch-review-80", value)
        assert other.get(HOME).status_code == 401
    settings = GuardSettings(
        queue="q", reviewer="ann", dataset=DATASET, port=80, token_sha256=token_hash(TOKEN), cookie_key="key"
    )
    now = [0.0]
    login = Login(settings, clock=lambda: now[0])
    signed = f"{12 * 3600}.{login._sign(12 * 3600)}"
    assert login._is_signed(signed)
    now[0] = 12 * 3600
    assert not login._is_signed(signed)


def test_guessing_is_stopped_also_for_the_right_token_but_not_for_others(guarded):
    client = guarded.client(logged_in=False)
    codes = [client.get("/", params={"token": f"guess-{number}"}).status_code for number in range(12)]
    assert codes == [401] * 10 + [429] * 2
    answer = client.post("/vouch/login", data={"token": TOKEN})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 300
    assert "set-cookie" not in answer.headers


def test_those_who_are_in_stay_in_while_somebody_guesses(guarded):
    client = guarded.client()
    for number in range(11):
        client.get("/", params={"token": f"guess-{number}"})
    assert client.get(HOME).status_code == 200


def test_failures_are_forgotten_after_a_while_and_counted_by_peer():
    now = [0.0]
    failures = Failures(2, 10, lambda: now[0])
    failures.add("a")
    now[0] = 4
    failures.add("a")
    assert failures.wait("a") == 6
    assert failures.wait("b") == 0
    now[0] = 10
    assert failures.wait("a") == 0
    now[0] = 14
    assert failures.wait("a") == 0


def test_a_login_of_many_fields_is_refused(guarded):
    client = guarded.client(logged_in=False)
    assert client.post("/vouch/login", content="a&" * 20 + f"token={TOKEN}").status_code == 400


def test_a_login_without_end_is_cut_off(guarded):
    client = guarded.client(logged_in=False)
    assert client.post("/vouch/login", data={"token": "x" * 10_000}).status_code == 413


class TestProxy:
    def client(self, guarded, peer="10.0.0.7"):
        return guarded.client(
            peer=peer, logged_in=False, trust_header="X-Forwarded-User", trusted_proxies=("10.0.0.0/24",)
        )

    def test_a_trusted_proxys_word_counts(self, guarded):
        assert self.client(guarded).get(HOME, headers={"X-Forwarded-User": "ann"}).status_code == 200

    def test_another_reviewer_is_sent_away(self, guarded):
        answer = self.client(guarded).get(HOME, headers={"X-Forwarded-User": "ben"})
        assert answer.status_code == 403
        assert guarded.reached() == []

    @pytest.mark.parametrize("peer", ["10.0.1.7", "127.0.0.1", "testclient"])
    def test_no_other_header_counts(self, guarded, peer):
        assert self.client(guarded, peer).get(HOME, headers={"X-Forwarded-User": "ann"}).status_code == 401

    def test_without_the_header_a_token_is_asked_for(self, guarded):
        assert self.client(guarded).get(HOME).status_code == 401


class TestProxyThatKnowsNoUsers:
    """It does TLS; people type their tokens."""

    NETWORKS = ("10.0.0.0/24",)

    def client(self, guarded, peer="10.0.0.7"):
        client = guarded.client(peer=peer, logged_in=False, trusted_proxies=self.NETWORKS)
        del client.headers["origin"]
        return client

    def wrong(self, client, came="198.51.100.1", **headers):
        sent = {"x-forwarded-for": came, "sec-fetch-site": "same-origin", **headers}
        return client.post("/vouch/login", data={"token": "wrong"}, headers=sent).status_code

    def cookie(self, client, **headers):
        answer = client.get("/", params={"token": TOKEN}, headers=headers)
        assert answer.status_code == 303
        return answer.headers["set-cookie"].lower()

    def test_its_word_makes_the_cookie_secure(self, guarded):
        client = self.client(guarded)
        assert "; secure" in self.cookie(client, **{"x-forwarded-proto": "https"})
        assert "; secure" in self.cookie(client, **{"x-forwarded-proto": "https, http"})
        assert "; secure" not in self.cookie(client, **{"x-forwarded-proto": "http"})
        assert "; secure" not in self.cookie(client)

    def test_no_other_header_does(self, guarded):
        assert "; secure" not in self.cookie(self.client(guarded, "10.0.1.7"), **{"x-forwarded-proto": "https"})

    def test_the_pages_own_origin_makes_it_secure_whoever_hands_it_on(self, guarded):
        client = self.client(guarded, "10.0.1.7")
        for scheme, is_secure in (("https", True), ("http", False)):
            headers = {"origin": f"{scheme}://127.0.0.1"}
            answer = client.post("/vouch/login", data={"token": TOKEN}, headers=headers)
            assert ("; secure" in answer.headers["set-cookie"].lower()) == is_secure

    def test_it_reveals_nothing_of_who_is_in(self, guarded):
        answer = self.client(guarded).get(HOME, headers={"x-forwarded-user": "ann", "remote-user": "ann"})
        assert answer.status_code == 401

    def test_one_who_guesses_locks_out_no_other(self, guarded):
        client = self.client(guarded)
        assert [self.wrong(client) for _ in range(11)] == [401] * 10 + [429]
        assert self.wrong(client, "198.51.100.2") == 401

    def test_one_who_guesses_is_one_whatever_else_they_send(self, guarded):
        client = self.client(guarded)
        made_up = [f"203.0.113.{number}, 198.51.100.1" for number in range(11)]
        assert [self.wrong(client, came) for came in made_up] == [401] * 10 + [429]
        assert self.wrong(client, "203.0.113.1") == 401

    def test_without_a_trusted_proxy_the_header_counts_for_nothing(self, guarded):
        client = self.client(guarded, "10.0.1.7")
        made_up = [f"203.0.113.{number}" for number in range(11)]
        assert [self.wrong(client, came) for came in made_up] == [401] * 10 + [429]


# What pages of other sites can have a browser do: nothing.
#
# Whom a request comes from, by the headers of proxies that are trusted.


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
