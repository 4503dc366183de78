"""Values by which FiftyOne would look beyond the desk, or call what is named."""

import pytest

from review_ui.guard.bodies import MOST_BYTES, STAGES, check_values
from review_ui.guard.refusal import RefusedError
from tests.review_ui.guard.conftest import DATASET_ID, DESK

OURS = (DESK, DATASET_ID)


@pytest.mark.parametrize(
    "value",
    [
        {"dataset_name": "vouch-q-ben"},
        {"dataset": {"name": DESK}},
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
        {"dataset_name": DESK, "dataset_id": DATASET_ID, "dataset": None},
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
    told = {"content-type": "application/json", "content-length": str(MOST_BYTES * 2)}
    assert client.post("/graphql", content=b"{}", headers=told).status_code == 413
    endless = (b"x" * (1 << 20) for _ in range(10))
    assert client.post("/graphql", content=endless, headers={"content-type": "application/json"}).status_code == 413
    assert guarded.reached() == []
