"""Who comes in, and how."""

import pytest

from tests.review_ui.guard.conftest import DATASET, TOKEN
from vouch_labels.review_ui.guard.auth import Failures, Login, token_hash
from vouch_labels.review_ui.guard.settings import GuardSettings

HOME = f"/datasets/{DATASET}"


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
