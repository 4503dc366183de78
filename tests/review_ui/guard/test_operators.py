"""Which operators may be seen and run."""

import json

import pytest

from review_ui.guard.operators import BUILT_IN
from tests.review_ui.guard.conftest import as_json

FOREIGN = [
    "@voxel51/operators/download_file",
    "@voxel51/operators/list_files",
    "@voxel51/operators/delete_selected_samples",
    "@voxel51/operators/edit_field_values",
    "@voxel51/panels/similarity_search",
    "@vouch/reviews/submit",
    "@vouch/review",
    "",
    None,
    ["@vouch/review/submit"],
]


@pytest.mark.parametrize("path", ["execute", "execute/generator", "resolve-type", "resolve-execution-options"])
@pytest.mark.parametrize("uri", FOREIGN)
def test_other_operators_are_refused(guarded, client, path, uri):
    assert client.post(f"/operators/{path}", json={"operator_uri": uri}).status_code == 403
    assert guarded.reached() == []


def test_our_own_and_the_app_s_few_run_and_are_noted_before_they_are_told(guarded, client):
    for uri in ("@vouch/review/submit", *BUILT_IN):
        body = {"operator_uri": uri, "params": {"item": 1}, "dataset_name": "vouch-q-ann", "view": []}
        assert client.post("/operators/execute", json=body).status_code == 200
    method, path, kept, status = guarded.place.noted[0]
    assert (method, path, status) == ("POST", "/operators/execute", 200)
    assert json.loads(kept) == {"operator_uri": "@vouch/review/submit", "params": {"item": 1}}


@pytest.mark.parametrize("path", ["execute", "execute/generator"])
@pytest.mark.parametrize(("raises_at", "status"), [("start", 500), ("middle", 500), ("end", 200)])
def test_what_raises_is_noted_once_with_what_was_told_of_it(guarded, client, path, raises_at, status):
    guarded.behind.error, guarded.behind.raises_at = RuntimeError("/home/ann"), raises_at
    answer = client.post(f"/operators/{path}", json={"operator_uri": "@vouch/review/submit", "params": {"item": 1}})
    assert answer.status_code == status
    assert "ann" not in answer.text
    kept = as_json({"operator_uri": "@vouch/review/submit", "params": {"item": 1}})
    assert guarded.place.noted == [("POST", f"/operators/{path}", kept, status)]


@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "", "x"]
)
def test_what_a_foreign_form_can_send_is_refused(guarded, client, kind):
    body = json.dumps({"operator_uri": "@vouch/review/submit"})
    assert client.post("/operators/execute", content=body, headers={"content-type": kind}).status_code == 415
    assert guarded.reached() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"[" * 100_000, b'{"operator_uri": "\xff"}'])
def test_what_is_no_request_is_refused(guarded, client, body):
    answer = client.post("/operators/execute", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 403)
    assert guarded.reached() == []


def test_the_lists_show_only_what_may_run(guarded, client):
    listed = [{"uri": uri} for uri in (*FOREIGN, "@vouch/review/submit")]
    guarded.behind.answer = {"operators": listed, "errors": ["/home/ann/plugin.py"]}
    answer = client.post("/operators", json={"dataset_name": "vouch-q-ann"}).json()
    assert answer == {"operators": [{"uri": "@vouch/review/submit"}], "errors": []}
    guarded.behind.answer = {"placements": [{"operator_uri": FOREIGN[0]}, {"operator_uri": "@vouch/review/take"}]}
    answer = client.post("/operators/resolve-placements", json={}).json()
    assert answer == {"placements": [{"operator_uri": "@vouch/review/take"}]}
    guarded.behind.answer = {"plugins": [{"name": "@vouch/review"}, {"name": "@voxel51/operators"}, {}]}
    assert client.get("/plugins").json() == {"plugins": [{"name": "@vouch/review"}]}


def test_what_fails_is_told_without_the_traceback_which_the_log_has(guarded, client, caplog):
    trace = 'Traceback (most recent call last):\n  File "/home/ann/plugin.py", line 1'
    guarded.behind.answer = {"result": None, "error": trace, "error_message": "no such thing"}
    answer = client.post("/operators/execute", json={"operator_uri": "@vouch/review/submit"}).json()
    assert answer == {"result": None, "error": "no such thing", "error_message": "no such thing"}
    assert "/home/ann/plugin.py" in caplog.text
    fine = {"result": {"cards": []}, "error": None, "error_message": None}
    guarded.behind.answer = fine
    assert client.post("/operators/execute", json={"operator_uri": "@vouch/review/submit"}).json() == fine


def test_only_the_app_listens(guarded, client):
    fine = {"initializer": {"dataset": "vouch-q-ann"}, "events": [], "subscription": "x"}
    for kind in ("application/json", "text/event-stream"):
        answer = client.post("/events", content=json.dumps(fine), headers={"content-type": kind})
        assert answer.status_code == 200
    state = {"initializer": {"_CLS": "fiftyone.core.state.StateDescription", "dataset": None}}
    assert client.post("/events", json=fine | state).status_code == 403
    assert client.post("/events", json=fine | {"initializer": {"dataset": "vouch-q-ben"}}).status_code == 403
    assert client.post("/events", json=fine | {"initializer": "x"}).status_code == 403
