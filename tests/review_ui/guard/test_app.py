"""What is not in the table is refused."""

import pytest

from tests.review_ui.guard.conftest import DATASET
from vouch_labels.review_ui.guard.app import find_route


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
