"""What was possible with FiftyOne's own server, tried on the guarded one."""

import os
import signal
import threading

import psutil
import pytest

from tests.processes import until
from vouch_labels.review_ui.guard.requests import BUILT_IN
from vouch_labels.review_ui.queue.database import connect
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.server.mongod import DatabaseUse
from vouch_labels.review_ui.server.serve import ServeOptions, keep_alive, served
from vouch_labels.schemas.errors import UserError

PATCH = {"content-type": "application/json-patch+json"}
REMOVE = [{"op": "remove", "path": "/question"}]


@pytest.fixture
def ann(review):
    with review.ann.client() as client:
        yield client


@pytest.fixture
def batch(review, ann):
    """Samples on Ann's session."""
    answer = review.ann.run(ann, "take_batch")
    assert answer.status_code == 200, answer.text
    assert answer.json().get("error") is None
    return review.ann.samples()


def test_no_file_of_the_machine_is_served(review, ann):
    for path in ("/etc/passwd", f"/vouch/{review.ann.queue}/../../../../etc/passwd", str(review.campaign.source.uri)):
        answer = ann.get("/media", params={"filepath": path})
        assert answer.status_code == 403
        assert "root:" not in answer.text


def test_images_of_the_session_are_served(review, ann, batch):
    assert len(batch) == 4
    answer = ann.get("/media", params={"filepath": batch[0]["filepath"]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"


def test_a_foreign_origin(review, ann):
    body = {"operator_uri": "@vouch/review/take_batch", "params": {}}
    before = len(review.ann.samples())
    for origin in ("https://evil.example", "null", review.ben.address):
        assert ann.post("/operators/execute", json=body, headers={"origin": origin}).status_code == 403
    plain = {"content-type": "text/plain"}
    assert ann.post("/operators/execute", content='{"operator_uri": "x"}', headers=plain).status_code == 415
    assert len(review.ann.samples()) == before


def test_a_foreign_host(ann):
    assert ann.get("/", headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("path", ["execute", "resolve-type", "resolve-execution-options", "execute/generator"])
def test_an_operator_outside_the_list(review, ann, path):
    body = {
        "operator_uri": "@voxel51/operators/list_files",
        "params": {"path": "/"},
        "dataset_name": review.ann.session,
    }
    answer = ann.post(f"/operators/{path}", json=body)
    assert answer.status_code == 403


def test_the_list_of_operators_and_plugins_is_ours(review, ann):
    listed = ann.post("/operators", json={"dataset_name": review.ann.session}).json()
    uris = {operator["uri"] for operator in listed["operators"]}
    assert "@vouch/review/submit" in uris
    assert all(uri.startswith("@vouch/review/") for uri in uris if "voxel51" not in uri)
    assert not any("delete" in uri or "file" in uri for uri in uris)
    assert [plugin["name"] for plugin in ann.get("/plugins").json()["plugins"]] == ["@vouch/review"]


def test_the_built_in_operators_that_are_allowed_change_nothing(review, ann):
    def kept():
        names = sorted(set(review.ann.database.list_collection_names()) - {"vouch_log"})
        found = {name: list(review.ann.database[name].find().sort("_id")) for name in names}
        for dataset in found["datasets"]:
            dataset.pop("last_loaded_at")
        return found

    review.ann.run(ann, "take_batch")
    before = kept()
    for uri in sorted(BUILT_IN):
        body = {"operator_uri": uri, "params": {}, "dataset_name": review.ann.session}
        answer = ann.post("/operators/execute", json=body)
        assert answer.status_code == 200
        assert answer.json()["error"] is None
        assert answer.json()["result"]
        assert kept() == before, uri
    review.ann.run(ann, "give_back")
    assert kept() != before


def test_the_bundle_is_served_and_no_source(ann):
    plugin = ann.get("/plugins").json()["plugins"][0]
    answer = ann.get(plugin["js_bundle_server_path"])
    assert answer.status_code == 200
    assert "executeOperator" in answer.text
    for name in ("__init__.py", "operators.py", "fiftyone.yml", "panel.py"):
        assert ann.get(f"/plugins/{name}").status_code == 403
        assert ann.get(f"/plugins/review_ui/plugin/{name}").status_code == 403


def test_a_write_without_a_lease(review, ann, batch):
    sample = batch[-1]
    path = f"/dataset/{review.ann.dataset['_id']}/sample/{sample['_id']}"
    with Queue.open(review.uri, review.ann.queue) as queue:
        queue.give_back("ann", [sample["item"]])
        queue.take("ben", 200)
    answer = ann.patch(path, json=REMOVE, headers=PATCH | {"if-match": '"x"'})
    assert answer.status_code == 423
    assert "no longer yours" in answer.json()["error"]
    kept = next(one for one in review.ann.samples() if one["_id"] == sample["_id"])
    assert kept["question"] == sample["question"]
    log = review.ann.database.vouch_log.find_one({"status": 423})
    assert (log["reviewer"], log["path"]) == ("ann", path)
    with Queue.open(review.uri, review.ann.queue) as queue:
        queue.give_back("ben")


def test_anothers_session_is_neither_read_nor_written(review, ann):
    other = str(review.ben.dataset["_id"])
    assert ann.patch(f"/dataset/{other}/sample/{'a' * 24}", json=REMOVE, headers=PATCH).status_code == 403
    query = "query Q($name: String!) { dataset(name: $name) { name } }"
    for name in (review.ben.session, other):
        assert ann.post("/graphql", json={"query": query, "variables": {"name": name}}).status_code == 403
    own = ann.post("/graphql", json={"query": query, "variables": {"name": review.ann.session}}).json()
    assert own["data"]["dataset"]["name"] == review.ann.session
    searched = "query Q($search: String!) { datasets(search: $search, first: 50) { edges { node { name } } } }"
    found = ann.post("/graphql", json={"query": searched, "variables": {"search": ""}}).json()
    assert [edge["node"]["name"] for edge in found["data"]["datasets"]["edges"]] == [review.ann.session]
    body = {"operator_uri": "@vouch/review/take_batch", "params": {}, "dataset_name": review.ben.session}
    assert ann.post("/operators/execute", json=body).status_code == 403


def test_anothers_session_is_not_read_by_a_default_of_another_operation(review, ann):
    asked = f'query A($n: String! = "{review.ben.session}") {{ dataset(name: $n) {{ name }} }}'
    other = f'query B($n: String! = "{review.ann.session}") {{ dataset(name: $n) {{ name }} }}'
    for query, name in ((f"{asked} {other}", "A"), (f"{other} {asked}", "A"), (asked, "A"), (asked, None)):
        answer = ann.post("/graphql", json={"query": query, "operationName": name})
        assert answer.status_code == 403
        assert review.ben.session not in answer.text
    assert ann.post("/graphql", json=[{"query": other, "operationName": "B"}]).status_code == 400
    own = ann.post("/graphql", json={"query": other, "operationName": "B"}).json()
    assert own["data"]["dataset"]["name"] == review.ann.session


def test_a_mutation_of_data(review, ann):
    query = 'mutation { deleteSavedView(subscription: "s", session: null, viewName: "a", datasetName: "b") }'
    assert ann.post("/graphql", json={"query": query}).status_code == 403


def test_a_view_of_other_collections(review, ann):
    query = "query Q($d: String!, $v: BSONArray!) { samples(dataset: $d, view: $v) { __typename } }"
    stage = {"_cls": "fiftyone.core.stages.Mongo", "kwargs": [["pipeline", [{"$unionWith": "vouch_items"}]]]}
    variables = {"d": review.ann.session, "v": [stage]}
    assert ann.post("/graphql", json={"query": query, "variables": variables}).status_code == 403


def test_a_class_that_is_named_in_disguise(review, ann, tmp_path):
    """FiftyOne imports what `_cls` names and calls it; extended JSON has two ways to write a string."""
    query = (
        "query Q($d: String!, $v: BSONArray!) { schemaForViewStages(datasetName: $d, viewStages: $v) { __typename } }"
    )
    made = tmp_path / "made"
    for named in ({"$symbol": "os.mkdir"}, {"$code": "os.mkdir"}, "os.mkdir"):
        stage = {"_cls": named, "kwargs": [["path", str(made)]]}
        answer = ann.post("/graphql", json={"query": query, "variables": {"d": review.ann.session, "v": [stage]}})
        assert not made.exists()
        assert answer.status_code == 403


def test_nobody_comes_in_without_the_right_token(review, ann):
    with review.ben.client(logged_in=False) as stranger:
        assert stranger.get("/fiftyone").status_code == 401
        # Ann's session is Ann's alone.
        value = ann.cookies[f"vouch-review-{review.ann.address.rpartition(':')[2]}"]
        stranger.cookies.set(f"vouch-review-{review.ben.address.rpartition(':')[2]}", value)
        assert stranger.get("/fiftyone").status_code == 401
        codes = [stranger.get("/", params={"token": f"guess {number}"}).status_code for number in range(11)]
        assert codes == [401] * 10 + [429]


def test_no_log_holds_a_token_or_a_session(review, ann):
    ann.get("/fiftyone")
    text = review.ann.server.log.read_text()
    assert "token-of-ann" not in text
    assert ann.cookies[f"vouch-review-{review.ann.address.rpartition(':')[2]}"] not in text


def test_a_panel_runs_no_method_but_its_own(review, ann):
    """Its __init__ kept what it was given, after which the list of operators failed until the next start."""
    for method in ("__init__", "to_json"):
        params = {"panel_id": "x", "__method__": method}
        body = {"operator_uri": "@vouch/review/review_queue", "params": params, "dataset_name": review.ann.session}
        assert ann.post("/operators/execute", json=body).status_code == 403
    listed = ann.post("/operators", json={"dataset_name": review.ann.session})
    assert "@vouch/review/review_queue" in {one["uri"] for one in listed.json()["operators"]}


def test_a_query_of_fragments_that_double_is_not_run(review, ann):
    spread = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(30))
    query = f"{{ ...F0 }} {spread} fragment F30 on Query {{ version }}"
    assert ann.post("/graphql", json={"query": query}).status_code == 400


@pytest.mark.parametrize(
    "path", ["operators", "operators/resolve-placements", "operators/execute", "graphql", "events"]
)
def test_a_body_that_is_no_object(ann, path):
    assert ann.post(f"/{path}", json=[]).status_code == 400


def test_what_a_review_writes_is_its_owners_alone(review):
    log = review.ann.server.log
    assert log.stat().st_mode & 0o077 == 0


def test_what_fails_is_reported_without_traceback_and_logged_once(review, ann, batch):
    # Without a data set this fails within FiftyOne.
    answer = ann.post("/operators/execute", json={"operator_uri": "@voxel51/operators/get_label_schemas"})
    assert answer.json()["error"]
    assert "Traceback" not in answer.text
    sample = batch[0]
    path = f"/dataset/{review.ann.dataset['_id']}/sample/{sample['_id']}"
    ann.patch(path, json=REMOVE, headers=PATCH | {"if-match": '"2000-01-01T00:00:00"'})
    lines = review.ann.server.log.read_text().splitlines()
    assert any("label_schemas" in line for line in lines)
    logged = [line for line in lines if f"Received patch request for sample {sample['_id']}" in line]
    assert len(logged) == 1


def test_reviews_work_through_the_guard_and_answers_are_kept(review, ann, batch):
    before = connect(review.uri)
    item = batch[0]["item"]
    answer = review.ann.run(ann, "submit", item=item, seconds=2.5)
    assert answer.json().get("error") is None, answer.text
    event = before.events.find_one({"what": "submitted", "item": item})
    before.close()
    assert event["reviewer"] == "ann"


def test_it_listens_on_loopback_alone(review):
    port = int(review.ann.address.rpartition(":")[2])
    listening = {
        (one.laddr.ip, one.laddr.port)
        for one in psutil.Process(review.ann.server.pid).net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert ("127.0.0.1", port) in listening
    assert {address for address, _ in listening} == {"127.0.0.1"}


def test_a_session_is_open_once(review, tmp_path):
    use = DatabaseUse(review.uri, lambda: False)
    options = ServeOptions(reviewers=("ann",))
    with (
        pytest.raises(UserError, match="ann's session is open already"),
        served(review.campaign, review.ann.queue, use, options, {"ann": "x" * 20}, tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_server_that_hangs_is_found_by_its_silence(review, monkeypatch):
    """Its process runs on, as with an event loop that never ends what it does."""
    server = review.ben.server
    assert not server.has_hung()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        monkeypatch.setattr("vouch_labels.review_ui.server.process.SILENT_S", 1)
        until(server.has_hung)
        assert not server.has_died()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    monkeypatch.undo()
    assert not server.has_hung()


@pytest.mark.slow
def test_a_server_that_is_killed_is_started_again_for_the_same_session(review):
    class EnoughError(Exception):
        pass

    messages: list[str] = []

    def say(message: str) -> None:
        messages.append(message)
        raise EnoughError

    with review.ann.client() as client:
        review.ann.run(client, "take_batch")
        held = {sample["item"] for sample in review.ann.samples()}
        assert held
        watched = [review.ann.server]
        pid = review.ann.server.pid
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(EnoughError):
            keep_alive(watched, DatabaseUse(review.uri, lambda: False), say)
        assert "runs again" in messages[0]
        assert review.ann.server.pid != pid
        assert client.get("/fiftyone").status_code == 200
        assert {sample["item"] for sample in review.ann.samples()} == held
