"""What is not in the table is refused; and on what the review opens."""

import re

import pytest

from tests.review_ui.guard.conftest import DATASET, MINE
from vouch_labels.review_ui.guard.app import find_route
from vouch_labels.schemas.errors import UserError

HOME = f"/datasets/{DATASET}"
INDEX = """<!DOCTYPE html><html><head>
<link rel="preload" href="https://fonts.googleapis.com/css2?family=Palanquin" as="font" crossorigin>
<link rel="icon" href="./favicon.ico" /><title>FiftyOne</title>
<script type="module" crossorigin src="./assets/index.js"></script></head><body><div id="root"></div></body></html>"""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/plugins/fiftyone.yml"),
        ("GET", "/plugins/__init__.py"),
        ("GET", "/plugins/../index.umd.js"),
        ("GET", "/plugins/a/../../index.umd.js"),
        ("GET", "/plugins/index.umd.js/x"),
        ("GET", "/assets/../app.py"),
        ("GET", "/assets/x/y.js"),
        ("GET", "/assets/x.py"),
        ("GET", "/graphql"),
        ("POST", "/event"),
        ("POST", "/values"),
        ("POST", "/aggregate"),
        ("POST", "/tag"),
        ("POST", "/tagging"),
        ("POST", "/sort"),
        ("POST", "/frames"),
        ("POST", "/embeddings/plot"),
        ("GET", "/screenshot/a.html"),
        ("GET", "/runtime-assets/models/sam2/x"),
        ("POST", "/operators/subscribe-execution-store"),
        ("POST", "/dataset/d/sample/" + "a" * 24 + "/commit-mask"),
        ("DELETE", "/dataset/d/sample/" + "a" * 24),
        ("PUT", "/fiftyone"),
        ("OPTIONS", "/media"),
        ("TRACE", "/"),
        ("GET", "/media/"),
        ("GET", "/datasets/a/b"),
        ("GET", "/x"),
    ],
)
def test_refused_by_default(guarded, client, method, path):
    assert find_route(method, path) is None
    assert client.request(method, path).status_code == 403
    assert guarded.reached() == []


@pytest.mark.parametrize(
    "path",
    ["/assets/index-CpOt-w2i.js", "/datasets/assets/x.wasm", "/favicon.ico", "/plugins/index.umd.js", "/fiftyone"],
)
def test_what_the_app_is_made_of_goes_through(guarded, client, path):
    assert client.get(path).status_code == 200
    assert guarded.reached() == [path]


def test_files_with_a_hash_in_their_names_may_be_kept(client):
    assert "cache-control" not in client.get("/assets/index-CpOt-w2i.js").headers


@pytest.mark.parametrize("path", ["/", "/datasets/vouch-q-ben", "/datasets/coco"])
def test_other_pages_lead_to_the_own_session(guarded, client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/datasets/{DATASET}")
    assert guarded.reached() == []


def test_a_failure_of_fiftyone_shows_no_traceback(guarded, client):
    guarded.behind.status, guarded.behind.answer = 500, {"stack": "File /home/ann/app.py"}
    answer = client.get("/fiftyone")
    assert answer.status_code == 500
    assert "stack" not in answer.text
    assert "log" in answer.json()["error"]
    guarded.behind.error = RuntimeError("/home/ann")
    answer = client.get("/fiftyone")
    assert answer.status_code == 500
    assert "ann" not in answer.text


@pytest.mark.parametrize("path", ["//media", "/media?x", "/media#x", "/media\n", "/datasets/a\\b", "/Media"])
def test_a_path_is_the_whole_path(path):
    assert find_route("GET", path) is None


def test_a_path_with_a_coded_question_mark_is_no_shorter_one(guarded, client):
    assert client.get("/fiftyone%3Fx").status_code == 403
    assert guarded.reached() == []


# The review opens on its first item: what takes a batch, what does not, and what covers the App meanwhile.


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
