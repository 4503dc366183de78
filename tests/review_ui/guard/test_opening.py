"""The review opens on its first item: what takes a batch, what does not, and what covers the App meanwhile."""

import re

import pytest

from tests.review_ui.guard.conftest import DATASET, MINE
from vouch_labels.schemas.errors import UserError

HOME = f"/datasets/{DATASET}"
INDEX = """<!DOCTYPE html><html><head>
<link rel="preload" href="https://fonts.googleapis.com/css2?family=Palanquin" as="font" crossorigin>
<link rel="icon" href="./favicon.ico" /><title>FiftyOne</title>
<script type="module" crossorigin src="./assets/index.js"></script></head><body><div id="root"></div></body></html>"""


@pytest.fixture
def index(guarded):
    """The App's page, whatever asks for it."""
    from starlette.responses import HTMLResponse

    async def answer(scope, receive, send):
        guarded.behind.seen.append((scope["method"], scope["path"], b""))
        await HTMLResponse(INDEX)(scope, receive, send)

    guarded.behind = answer_with(guarded.behind, answer)
    return guarded


def answer_with(behind, answer):
    class Index(type(behind)):
        async def __call__(self, scope, receive, send):
            await answer(scope, receive, send)

    return Index(behind.seen)


def test_what_is_held_comes_first(guarded, client):
    guarded.session.held = True
    answer = client.get(HOME)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{HOME}?id={MINE}")
    assert guarded.reached() == []
    assert guarded.session.taken == []


def test_a_page_takes_nothing_before_somebody_sees_it(guarded, client):
    """Browsers load pages in advance and in the background; the script of this one waits until it is on the screen."""
    answer = client.get(HOME)
    assert answer.status_code == 200
    assert re.findall(r'<script[^>]*src="([^"]*)"', answer.text) == ["/vouch/opening.js"]
    assert "Opening the review of <b>ann</b>" in answer.text
    assert guarded.session.taken == []
    assert guarded.reached() == []
    script = client.get("/vouch/opening.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "/vouch/open" in script.text


def test_a_batch_is_taken_once(guarded):
    client = guarded.client(batch=7)
    for _ in range(2):
        assert client.post("/vouch/open", json={}).json() == {"address": f"{HOME}?id={MINE}"}
    assert guarded.session.taken == [7]


def test_an_empty_queue_leads_to_the_end(guarded, client):
    guarded.session.left = False
    assert client.post("/vouch/open", json={}).json() == {"address": f"{HOME}?pause"}


def test_opening_takes_what_a_change_takes(guarded, client):
    assert client.post("/vouch/open", json={}, headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post("/vouch/open", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/vouch/open").status_code == 403
    assert guarded.client(logged_in=False).post("/vouch/open", json={}).status_code == 401
    assert guarded.session.taken == []


def test_a_database_that_is_away_is_reported(guarded, client):
    guarded.session.error = UserError("the review database at x does not answer")
    for answer in (client.get(HOME), client.post("/vouch/open", json={})):
        assert answer.status_code == 503
        assert answer.json()["error"] == "the review database at x does not answer"


@pytest.mark.parametrize("item", ["f" * 24, "", "x", "a" * 23 + "Z"])
def test_an_item_that_has_gone_leads_to_the_first(index, item):
    answer = index.client().get(HOME, params={"id": item})
    assert (answer.status_code, answer.headers["location"]) == (303, HOME)
    assert index.reached() == []


@pytest.mark.parametrize("query", [f"id={MINE}", "pause", "view=x"])
def test_the_app_is_covered_before_its_script_runs(index, query):
    page = index.client(certified="Nothing <yet>.", commands=(("vouch certify 'a b.yaml'", "computes"),)).get(
        f"{HOME}?{query}"
    )
    assert int(page.headers["content-length"]) == len(page.content)
    text = page.text
    assert "googleapis" not in text
    assert "<title>Vouch review</title>" in text
    assert text.index("#vouch-cover {") < text.index("/vouch/before.js") < text.index("./assets/index.js")
    assert "[data-cy=fo-grid] { display: none }" in text
    assert text.index('<div id="vouch-cover"') < text.index('<div id="root"')
    assert "Nothing &lt;yet&gt;." in text
    assert "<code>vouch certify &#x27;a b.yaml&#x27;</code> computes" in text
    assert index.session.taken == []
    assert index.client().get("/vouch/before.js").status_code == 200


def test_asking_for_the_head_of_a_page_takes_nothing(index):
    assert index.client().head(HOME).status_code == 200
    assert index.client().head(f"{HOME}?pause").status_code == 200
    assert index.session.taken == []
