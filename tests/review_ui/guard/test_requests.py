"""Values by which FiftyOne would look beyond the session, or call what is named.

Changes of samples: the own session, a lease, the question alone.

Queries about the session, and changes of nothing but the view.

Which operators may be seen and run.
"""

import asyncio
import json
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from graphql import parse
from starlette.requests import Request

from tests.review_ui.guard.conftest import DATASET, DATASET_ID, LABEL, LOST, MINE, as_json
from vouch_labels.review_ui.guard import requests
from vouch_labels.review_ui.guard.requests import (
    BUILT_IN,
    MOST_BYTES,
    MOST_DEPTH,
    MOST_FIELDS,
    MOST_ROOT_FIELDS,
    PANEL,
    STAGES,
    _Fragments,
    _only_operation,
    check_graphql,
    check_values,
)
from vouch_labels.review_ui.guard.settings import RefusedError

OURS = (DATASET, DATASET_ID)


@pytest.mark.parametrize(
    "value",
    [
        {"dataset_name": "vouch-q-ben"},
        {"dataset": {"name": DATASET}},
        {"dataset_id": "f" * 24},
        {"a": [{"datasetName": "coco"}]},
        {"view": [{"_cls": "fiftyone.core.stages.Mongo", "kwargs": [["pipeline", []]]}]},
        {"view": [{"_cls": "fiftyone.core.stages.Concat"}]},
        {"view": [{"_cls": "subprocess.Popen", "kwargs": []}]},
        {"view": [{"_cls": {"$symbol": "subprocess.Popen"}, "kwargs": []}]},
        {"view": [{"_cls": {"$code": "subprocess.Popen"}, "kwargs": []}]},
        {"view": [{"_cls": ["subprocess.Popen"]}]},
        {"filter": {"label": {"$symbol": "cat"}}},
        {"aggregations": [{"_cls": "os.system"}]},
        {"initializer": {"_CLS": "fiftyone.core.state.StateDescription"}},
        {"extended": {"subprocess.Popen": {"args": ["touch", "/tmp/x"]}}},
        {"extendedStages": {"fiftyone.core.stages.Mongo": {"pipeline": []}}},
        {"extended_stages": ["fiftyone.core.stages.Mongo"]},
        {"filter": {"$where": "sleep(1000)"}},
        {"filter": {"$expr": {"$function": {"body": "", "args": [], "lang": "js"}}}},
        {"pipeline": [{"$lookup": {"from": "vouch_items"}}]},
        {"delegated": True},
        {"request_delegation": True},
        {"generated_dataset": "x"},
    ],
)
def test_refused(value):
    with pytest.raises(RefusedError) as refused:
        check_values(value, OURS)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "value",
    [
        {"dataset_name": DATASET, "dataset_id": DATASET_ID, "dataset": None},
        {"view": [{"_cls": "fiftyone.core.stages.Select", "kwargs": [["sample_ids", ["a"]]]}]},
        {"extended": {}, "extended_stages": None},
        {"extended": {"fiftyone.core.stages.SortBy": {"field_or_expr": "item"}}},
        {"value": {"_cls": "Detection", "label": "cat"}},
        {"delegated": False, "request_delegation": None},
        {"filters": {"question.detections.label": {"values": ["cat"], "exclude": False}}},
    ],
)
def test_allowed(value):
    check_values(value, OURS)


def test_depth_has_an_end():
    value: object = 1
    for _ in range(70):
        value = [value]
    with pytest.raises(RefusedError, match="deep"):
        check_values(value, OURS)


def test_the_allowed_stages_are_fiftyone_s():
    text = {name.rpartition(".")[2] for name in STAGES}
    assert not text & {
        "Mongo",
        "Concat",
        "ToPatches",
        "ToFrames",
        "SetField",
        "MapLabels",
        "GroupBy",
        "SortBySimilarity",
    }


def test_a_body_that_is_too_large_is_cut_off(guarded, client):
    answer = client.post("/graphql", content=b"x" * (MOST_BYTES + 1), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    headers = {"content-type": "application/json", "content-length": str(MOST_BYTES * 2)}
    assert client.post("/graphql", content=b"{}", headers=headers).status_code == 413
    endless = (b"x" * (1 << 20) for _ in range(10))
    assert client.post("/graphql", content=endless, headers={"content-type": "application/json"}).status_code == 413
    assert guarded.reached() == []


PATCH = {"content-type": "application/json-patch+json"}
DRAWN = [{"op": "add", "path": "/question/detections/-", "value": {"_cls": "Detection", "label": "cat"}}]


def change(client, sample=MINE, body=DRAWN, dataset=DATASET_ID, rest="", **headers):
    path = f"/dataset/{dataset}/sample/{sample}{rest}"
    return client.patch(path, content=as_json(body), headers=PATCH | headers)


def test_a_change_of_an_item_that_is_held_goes_through_and_is_noted(guarded, client):
    assert change(client).status_code == 200
    path = f"/dataset/{DATASET_ID}/sample/{MINE}"
    assert guarded.behind.seen == [("PATCH", path, as_json(DRAWN))]
    assert guarded.session.noted == [("PATCH", path, as_json(DRAWN), 200)]


def test_fiftyones_status_is_noted(guarded, client):
    guarded.behind.status = 412
    assert change(client).status_code == 412
    assert guarded.session.noted[0][3] == 412


def test_a_change_at_which_fiftyone_raises_is_noted_too(guarded, client):
    guarded.behind.error = RuntimeError("/home/ann")
    answer = change(client)
    assert answer.status_code == 500
    assert "ann" not in answer.text
    assert guarded.session.noted == [("PATCH", f"/dataset/{DATASET_ID}/sample/{MINE}", as_json(DRAWN), 500)]


def test_a_change_that_was_answered_before_is_noted_once(guarded, client):
    guarded.behind.error, guarded.behind.raises_at, guarded.behind.status = RuntimeError(), "end", 500
    assert change(client).status_code == 500
    assert [noted[3] for noted in guarded.session.noted] == [500]


def test_without_a_lease_nothing_is_changed_but_the_draft_is_kept(guarded, client):
    answer = change(client, LOST)
    assert answer.status_code == 423
    assert "no longer yours" in answer.json()["error"]
    assert guarded.reached() == []
    assert guarded.session.noted == [("PATCH", f"/dataset/{DATASET_ID}/sample/{LOST}", as_json(DRAWN), 423)]


def test_a_sample_that_is_not_in_the_session(guarded, client):
    assert change(client, "d" * 24).status_code == 404
    assert guarded.reached() == []


@pytest.mark.parametrize("dataset", ["f" * 24, "vouch-q-ben", "coco"])
def test_anothers_session(guarded, client, dataset):
    assert change(client, dataset=dataset).status_code == 403
    assert guarded.reached() == []


@pytest.mark.parametrize(
    "change_",
    [
        {"op": "replace", "path": "/filepath", "value": "/etc/passwd"},
        {"op": "replace", "path": "/item", "value": "x"},
        {"op": "replace", "path": "/epoch", "value": 9},
        {"op": "remove", "path": "/known"},
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "/questions", "value": 1},
        {"op": "move", "from": "/item", "path": "/question/detections/0/label"},
        {"op": "copy", "from": "/filepath", "path": "/question/detections/0/label"},
        {"op": "replace", "path": "/question/../item", "value": 1},
        {"op": "replace", "path": "/question/__class__", "value": 1},
        {"op": "replace", "path": "/question/_doc", "value": 1},
        {"op": "replace", "path": "/question/detections/0/id", "value": "a"},
        {"op": "replace", "path": "/question/detections/0/mask_path", "value": "/etc/passwd"},
        {"op": "replace", "path": "/question/detections/0.mask_path", "value": "/etc/passwd"},
        {"op": "add", "path": "/question/detections/-", "value": {"_cls": "Detection", "mask_path": "/etc/passwd"}},
        {"op": "add", "path": "/question/detections", "value": [{"a": {"filepath": "/etc/passwd"}}]},
        {"op": "replace", "path": "/question~1x", "value": 1},
        {"op": "copy", "from": "/question/detections/0/label", "path": "/question/detections/0/mask_path"},
        {"op": "move", "from": "/question/detections/0/mask_path", "path": "/question/detections/0/label"},
        {"op": "test", "path": "/question/detections/0/mask_path", "value": None},
        {"op": "replace", "path": "/question/detections/0/mask_path/x", "value": None},
        {"op": "remove", "path": "/question/detections/0/id"},
    ],
)
def test_nothing_but_the_answer_can_be_changed(guarded, client, change_):
    assert change(client, body=[*DRAWN, change_]).status_code == 403
    assert guarded.reached() == []
    assert guarded.session.noted[0][3] == 403


@pytest.mark.parametrize("op", [{"op": "add", "value": None}, {"op": "replace", "value": None}, {"op": "remove"}])
def test_a_mask_can_be_removed_wherever_it_is(guarded, client, op):
    body = [{**op, "path": f"/question/detections/0/{name}"} for name in ("mask", "mask_path")]
    assert change(client, body=body).status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"question": None}, 1, None, [1], [{"op": "add", "path": 3}], [{"path": "question"}]]
)
def test_what_is_no_patch(guarded, client, body):
    assert change(client, body=body).status_code == 400
    assert guarded.reached() == []


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x"])
def test_a_sample_takes_patches_alone(guarded, client, kind):
    assert change(client, body={"item": "x"}, **{"content-type": kind}).status_code == 415
    assert guarded.reached() == []


class TestLabel:
    def test_a_label_of_the_question(self, guarded, client):
        body = [{"op": "replace", "path": "/label", "value": "dog"}, {"op": "remove", "path": ""}]
        assert change(client, body=body, rest=f"/question.detections/{LABEL}").status_code == 200
        assert len(guarded.session.noted) == 1

    @pytest.mark.parametrize("field", ["known.detections", "questions.detections", "item"])
    def test_a_label_of_another_field(self, guarded, client, field):
        body = [{"op": "replace", "path": "/label", "value": "dog"}]
        assert change(client, body=body, rest=f"/{field}/{LABEL}").status_code == 403
        assert guarded.reached() == []

    def test_a_label_of_a_dataset_made_of_this_one(self, guarded, client):
        rest = f"/question.detections/{LABEL}?generated_dataset={DATASET}"
        assert change(client, body=[], rest=rest).status_code == 403
        assert guarded.reached() == []

    def test_without_a_lease(self, guarded, client):
        assert (
            change(client, LOST, [{"op": "remove", "path": ""}], rest=f"/question.detections/{LABEL}").status_code
            == 423
        )


def ask(client, query, **variables):
    return client.post("/graphql", json={"query": query, "variables": variables})


@pytest.mark.parametrize(
    "query",
    [
        "{ version }",
        "query Q($name: String!) { dataset(name: $name) { id } }",
        f'{{ dataset(name: "{DATASET}") {{ id }} }}',
        "query Q($d: String!) { samples(dataset: $d, view: []) { __typename } }",
        "query Q { ...F } fragment F on Query { ... on Query { config { theme } } }",
        "mutation M { setSample(subscription: \"s\", session: null, groupId: null, id: \"a\") }",
        "mutation M($v: BSONArray) { setView(subscription: \"s\", datasetName: \"vouch-q-ann\", view: $v) }",
    ],
)  # fmt: skip
def test_allowed_queries(guarded, client, query):
    stage = {"_cls": "fiftyone.core.stages.Limit", "kwargs": [["limit", 3]]}
    assert ask(client, query, name=DATASET, d=DATASET_ID, v=[stage]).status_code == 200
    assert guarded.reached() == ["/graphql"]


@pytest.mark.parametrize(
    "query",
    [
        "mutation { deleteSavedView(subscription: \"s\", session: null, viewName: \"a\", datasetName: null) }",
        "mutation { createSavedView(subscription: \"s\", session: null, viewName: \"a\") { id } }",
        "mutation { updateSavedView(viewName: \"a\") { id } }",
        "mutation { setSidebarGroups(subscription: \"s\", session: null, dataset: \"vouch-q-ann\", stages: []) }",
        "mutation { setDatasetColorScheme(subscription: \"s\", datasetName: \"vouch-q-ann\") { id } }",
        "mutation { ...F } fragment F on Mutation { deleteSavedView(viewName: \"a\") }",
        "mutation { ... on Mutation { x: deleteSavedView(viewName: \"a\") } }",
        "query { version: estimatedDatasetCount }",
        "{ __schema { types { name } } }",
        "subscription { version }",
        "query A { version } mutation B { deleteSavedView(viewName: \"a\") }",
        '{ dataset(name: "vouch-q-ben") { id } }',
        "query Q($n: String = \"vouch-q-ben\") { dataset(name: $n) { id } }",
        "query Q($other: String!) { dataset(name: $other) { id } }",
        "query Q($other: String!) { samples(dataset: $other, view: []) { __typename } }",
        "query Q($other: String!) { aggregations(form: {dataset: $other, view: []}) { __typename } }",
        '{ savedViews(datasetName: "coco") { id } }',
        "{ datasets(search: \"\", first: 9) { total } }",
        "{ datasets(first: 9) { total } }",
        '{ samples(dataset: "vouch-q-ann", view: [{_cls: "fiftyone.core.stages.Mongo"}]) { __typename } }',
        'mutation { setView(datasetName: "vouch-q-ann", form: {extended: {a: 1}}) }',
        "mutation { setDataset(subscription: \"s\", name: \"coco\") }",
    ],
)  # fmt: skip
def test_refused_queries(guarded, client, query):
    assert ask(client, query, other="vouch-q-ben").status_code == 403
    assert guarded.reached() == []


class TestSeveralOperations:
    """FiftyOne runs the one that `operationName` names, with its own defaults."""

    MINE = 'query A($n: String! = "vouch-q-ann") { dataset(name: $n) { name } }'
    OTHERS = 'query B($n: String! = "vouch-q-ben") { dataset(name: $n) { name } }'

    @pytest.mark.parametrize("name", ["A", "B", None])
    @pytest.mark.parametrize("query", [f"{OTHERS} {MINE}", f"{MINE} {OTHERS}", f"{MINE} query C {{ version }}"])
    def test_are_refused(self, guarded, client, query, name):
        assert client.post("/graphql", json={"query": query, "operationName": name}).status_code == 403
        assert guarded.reached() == []

    def test_one_has_the_default_of_its_own(self, guarded, client):
        assert client.post("/graphql", json={"query": self.MINE, "operationName": "A"}).status_code == 200
        assert guarded.reached() == ["/graphql"]
        assert client.post("/graphql", json={"query": self.OTHERS, "operationName": "B"}).status_code == 403
        through = 'query B($n: String! = "vouch-q-ben") { ...F } fragment F on Query { dataset(name: $n) { name } }'
        assert client.post("/graphql", json={"query": through}).status_code == 403
        assert guarded.reached() == ["/graphql"]

    def test_none_is_refused(self, guarded, client):
        for query in ("fragment F on Query { version }", f"{self.MINE} type Query {{ version: String }}"):
            assert client.post("/graphql", json={"query": query}).status_code == 403
        assert guarded.reached() == []


@pytest.mark.parametrize(
    "default",
    [
        '[{_cls: "fiftyone.core.stages.Mongo", kwargs: []}]',
        '[{_cls: "subprocess.Popen", kwargs: []}]',
        "{extended: {a: 1}}",
        '{dataset: "vouch-q-ben"}',
    ],
)
@pytest.mark.parametrize("used", ["view: $v", "view: []"])
def test_defaults_are_held_to_the_rules_of_values(guarded, client, default, used):
    query = f'query A($v: BSONArray! = {default}) {{ samples(dataset: "{DATASET}", {used}) {{ __typename }} }}'
    assert client.post("/graphql", json={"query": query}).status_code == 403
    through = f"query A($v: BSONArray! = {default}) {{ ...F }} fragment F on Query {{ "
    through += f'samples(dataset: "{DATASET}", {used}) {{ __typename }} }}'
    assert client.post("/graphql", json={"query": through, "variables": {}}).status_code == 403
    assert guarded.reached() == []


def test_the_app_sends_one_operation_a_request():
    [folder] = find_spec("fiftyone").submodule_search_locations
    scripts = Path(folder).glob("server/static/assets/*.js")
    texts = [
        text for one in scripts for text in re.findall(r"text:`((?:query|mutation) [^`]+)`", one.read_text("utf-8"))
    ]
    assert len(texts) > 20
    for text in texts:
        document = parse(text)
        operation = _only_operation(document)
        assert operation.name is not None
        fragments = _Fragments(document)
        fragments.check_size(operation)
        # With room for another version's.
        size = fragments._size_of(operation.selection_set)
        assert size.fields < MOST_FIELDS / 4
        assert size.depth < MOST_DEPTH / 4


def doubling(levels, selection="...{below} ...{below}"):
    """A query whose fragments spread the next ones twice each."""
    names = [f"F{level}" for level in range(levels)]
    spread = [f"fragment {name} on Query {{ {selection.format(below=below)} }}" for name, below in pairwise(names)]
    return f"{{ ...F0 }} {' '.join(spread)} fragment {names[-1]} on Query {{ version }}"


def test_a_fragment_is_looked_at_once_however_often_it_is_spread(monkeypatch):
    """Two spreads a level double what is to be done at each: 2 ** 20 for what has 20 fragments."""
    looked = []
    node = _Fragments._node
    monkeypatch.setattr(_Fragments, "_node", lambda self, name: looked.append(name) or node(self, name))
    for selection in ("...{below} ...{below}", "... on Query {{ ...{below} }} ... {{ ...{below} }}"):
        looked.clear()
        with pytest.raises(RefusedError) as refused:
            check_graphql({"query": doubling(21, selection)}, OURS)
        assert refused.value.status == 400
        # Each by its size, where it is spread and by itself.
        assert len(looked) <= 3 * 21


@pytest.mark.parametrize(
    "query",
    [
        doubling(21, "a: dataset {{ ...{below} }} b: dataset {{ ...{below} }}"),
        # The server checks fragments that nothing spreads too.
        "{ version } " + doubling(21).partition("} ")[2],
        "{ " + " ".join(f"a{number}: version" for number in range(MOST_ROOT_FIELDS + 1)) + " }",
        "{ ...F } fragment F on Query { " + "version " * (MOST_ROOT_FIELDS + 1) + "}",
        "{ dataset " + "{ a " * 70 + "}" * 70 + "}",
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} }}" for n in range(2000))
        + " fragment F2000 on Query { version }",
        "{ version } fragment F on Query { version } fragment F on Query { version }",
        "{ version } fragment F on Query { ...G } fragment G on Query { ...F }",
    ],
)  # fmt: skip
def test_queries_without_measure_are_refused(guarded, client, query):
    assert client.post("/graphql", json={"query": query}).status_code == 400
    assert guarded.reached() == []


def test_a_variable_is_looked_through_once_however_often_it_is_used(monkeypatch):
    looked = []
    check = requests._check_pair
    monkeypatch.setattr(requests, "_check_pair", lambda *pair: looked.append(pair[0]) or check(*pair))
    used = " ".join(f"a{number}: schema(filters: $v, view: [[{{b: $v}}]])" for number in range(100))
    query = f"query Q($v: BSON) {{ dataset {{ {used} }} }}"
    value = [{"key": number} for number in range(1000)]
    check_graphql({"query": query, "variables": {"v": value}}, OURS)
    assert len(looked) == 1000 + 1 + 100 * 3
    with pytest.raises(RefusedError):
        check_graphql({"query": query.replace("filters", "extended"), "variables": {"v": value}}, OURS)


@pytest.mark.parametrize(
    "body",
    [
        [], [{"query": "{ version }"}], [{"query": TestSeveralOperations.MINE, "operationName": "A"}], {}, {"query": 1},
        {"query": "{"}, {"query": "{ version }", "variables": [1]},
        {"query": "{ ...F } fragment F on Query { ...F }"}, {"query": "{ ...G }"}, {"query": "{" * 3000},
        {"query": "{ version " * 30_000},
    ],
)  # fmt: skip
def test_what_is_no_request(guarded, client, body):
    assert client.post("/graphql", json=body).status_code == 400
    assert guarded.reached() == []


def test_a_search_among_datasets_finds_the_session(guarded, client):
    query = "query Q($search: String!, $name: String!) { dataset(name: $name) { id } ...N } "
    query += "fragment N on Query { datasets(search: $search, first: 3) { total } }"
    assert ask(client, query, search="", name=DATASET).status_code == 200
    reached = json.loads(guarded.behind.seen[-1][2])
    assert reached["variables"] == {"search": r"^vouch\-q\-ann$", "name": DATASET}
    assert reached["query"] == query


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


def test_our_own_and_the_app_s_few_run_and_are_noted_before_they_are_reported(guarded, client):
    for uri, params in {"@vouch/review/submit": {"item": 1}, **{uri: {} for uri in BUILT_IN}}.items():
        body = {"operator_uri": uri, "params": params, "dataset_name": "vouch-q-ann", "view": []}
        assert client.post("/operators/execute", json=body).status_code == 200
    method, path, kept, status = guarded.session.noted[0]
    assert (method, path, status) == ("POST", "/operators/execute", 200)
    assert json.loads(kept) == {"operator_uri": "@vouch/review/submit", "params": {"item": 1}}


@pytest.mark.parametrize("path", ["execute", "execute/generator"])
@pytest.mark.parametrize(("raises_at", "status"), [("start", 500), ("middle", 500), ("end", 200)])
def test_what_raises_is_noted_once_with_the_status_that_was_sent(guarded, client, path, raises_at, status):
    guarded.behind.error, guarded.behind.raises_at = RuntimeError("/home/ann"), raises_at
    answer = client.post(f"/operators/{path}", json={"operator_uri": "@vouch/review/submit", "params": {"item": 1}})
    assert answer.status_code == status
    assert "ann" not in answer.text
    kept = as_json({"operator_uri": "@vouch/review/submit", "params": {"item": 1}})
    assert guarded.session.noted == [("POST", f"/operators/{path}", kept, status)]


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
    listed = [{"uri": uri} for uri in (*FOREIGN, "@vouch/review/made_up", "@vouch/review/submit")]
    guarded.behind.answer = {"operators": listed, "errors": ["/home/ann/plugin.py"]}
    answer = client.post("/operators", json={"dataset_name": "vouch-q-ann"}).json()
    assert answer == {"operators": [{"uri": "@vouch/review/submit"}], "errors": []}
    guarded.behind.answer = {"placements": [{"operator_uri": FOREIGN[0]}, {"operator_uri": "@vouch/review/undo"}]}
    answer = client.post("/operators/resolve-placements", json={}).json()
    assert answer == {"placements": [{"operator_uri": "@vouch/review/undo"}]}
    guarded.behind.answer = {"plugins": [{"name": "@vouch/review"}, {"name": "@voxel51/operators"}, {}]}
    assert client.get("/plugins").json() == {"plugins": [{"name": "@vouch/review"}]}


def test_what_fails_is_reported_without_the_traceback_which_the_log_has(guarded, client, caplog):
    trace = 'Traceback (most recent call last):\n  File "/home/ann/plugin.py", line 1'
    guarded.behind.answer = {"result": None, "error": trace, "error_message": "no such thing"}
    answer = client.post("/operators/execute", json={"operator_uri": "@vouch/review/submit"}).json()
    assert answer == {"result": None, "error": "no such thing", "error_message": "no such thing"}
    assert "/home/ann/plugin.py" in caplog.text
    fine = {"result": {"items": []}, "error": None, "error_message": None}
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


@pytest.mark.parametrize(
    ("uri", "params", "status"),
    [
        (PANEL, {"__method__": "on_load", "panel_id": "p", "panel_state": {}, "event_args": {}}, 200),
        (PANEL, {"__method__": "on_change_current_sample", "panel_id": "p", "value": "a" * 24}, 200),
        (PANEL, {"__method__": "give_back", "panel_id": "p", "panel_state": {}, "path": "buttons.back"}, 200),
        *((PANEL, {"panel_id": "p", "__method__": method}, 200) for method in sorted(requests.PANEL_METHODS)),
        *(
            (PANEL, {"panel_id": "p", "__method__": method}, 403)
            for method in ("__init__", "__setattr__", "execute", "to_json", "render", "on_startup", "", None, 1, {}, [])
        ),
        (PANEL, {}, 403),
        (PANEL, {"__method__": "on_load", "custom_view_target": {}}, 403),
        (PANEL, {"__method__": "on_load", "panel_state": [1]}, 400),
        ("@vouch/review/submit", {"item": "1", "seconds": 2}, 200),
        ("@vouch/review/submit", {"item": "1", "__method__": "__init__"}, 403),
        ("@vouch/review/submit", {"panel_state": 1}, 403),
        ("@vouch/review/submit", [1], 400),
        ("@vouch/review/submit", "item", 400),
        ("@vouch/review/", {}, 403),
        ("@vouch/review/made_up", {}, 403),
        ("@vouch/review/x/submit", {}, 403),
        ("@voxel51/operators/get_label_schemas", {"panel_state": {}}, 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["execute", "execute/generator", "resolve-type", "resolve-execution-options"])
def test_operators_get_the_parameters_that_they_have(guarded, client, path, uri, params, status):
    """FiftyOne calls whatever method of the panel a request names; its __init__ broke the list of operators."""
    answer = client.post(f"/operators/{path}", json={"operator_uri": uri, "params": params})
    assert answer.status_code == status
    assert len(guarded.reached()) == (status == 200)


@pytest.mark.parametrize(
    "path", ["operators", "operators/resolve-placements", "operators/execute", "events", "graphql"]
)
@pytest.mark.parametrize("body", ["[]", "[1]", "1", '"x"', "null", "true"])
def test_a_body_that_is_no_object_is_refused(guarded, client, path, body):
    answer = client.post(f"/{path}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert guarded.reached() == []


@pytest.mark.parametrize("length", ["\u00b2", "1e3", "-1", "", "1" * 30, str(MOST_BYTES + 1)])
def test_a_length_that_is_none_is_refused(client, length):
    headers = {"content-type": "application/json", "content-length": length.encode("latin-1")}
    assert client.post("/operators/execute", content=b"{}", headers=headers).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(guarded, client, monkeypatch):
    monkeypatch.setattr(requests, "BODY_S", 0.01)

    async def receive():
        if not received:
            received.append(b"{")
            return {"type": "http.request", "body": b"{", "more_body": True}
        return await asyncio.Event().wait()

    received = []
    with pytest.raises(RefusedError) as refused:
        asyncio.run(requests.read_body(Request({"type": "http", "headers": []}, receive)))
    assert refused.value.status == 408
