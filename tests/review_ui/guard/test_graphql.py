"""Queries about the desk, and changes of nothing but the view."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from graphql import parse

from review_ui.guard.graphql import _only_operation
from tests.review_ui.guard.conftest import DATASET_ID, DESK


def ask(client, query, **variables):
    return client.post("/graphql", json={"query": query, "variables": variables})


@pytest.mark.parametrize(
    "query",
    [
        "{ version }",
        "query Q($name: String!) { dataset(name: $name) { id } }",
        f'{{ dataset(name: "{DESK}") {{ id }} }}',
        "query Q($d: String!) { samples(dataset: $d, view: []) { __typename } }",
        "query Q { ...F } fragment F on Query { ... on Query { config { theme } } }",
        "mutation M { setSample(subscription: \"s\", session: null, groupId: null, id: \"a\") }",
        "mutation M($v: BSONArray) { setView(subscription: \"s\", datasetName: \"vouch-q-ann\", view: $v) }",
    ],
)  # fmt: skip
def test_allowed(guarded, client, query):
    stage = {"_cls": "fiftyone.core.stages.Limit", "kwargs": [["limit", 3]]}
    assert ask(client, query, name=DESK, d=DATASET_ID, v=[stage]).status_code == 200
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
def test_refused(guarded, client, query):
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
    query = f'query A($v: BSONArray! = {default}) {{ samples(dataset: "{DESK}", {used}) {{ __typename }} }}'
    assert client.post("/graphql", json={"query": query}).status_code == 403
    through = f"query A($v: BSONArray! = {default}) {{ ...F }} fragment F on Query {{ "
    through += f'samples(dataset: "{DESK}", {used}) {{ __typename }} }}'
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
        assert _only_operation(parse(text)).name is not None


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


def test_a_search_among_datasets_finds_the_desk(guarded, client):
    query = "query Q($search: String!, $name: String!) { dataset(name: $name) { id } ...N } "
    query += "fragment N on Query { datasets(search: $search, first: 3) { total } }"
    assert ask(client, query, search="", name=DESK).status_code == 200
    reached = json.loads(guarded.behind.seen[-1][2])
    assert reached["variables"] == {"search": r"^vouch\-q\-ann$", "name": DESK}
    assert reached["query"] == query
