"""Changes of samples: the own desk, a lease, the question alone."""

import pytest

from tests.review_ui.guard.conftest import DATASET_ID, DESK, LABEL, LOST, MINE, as_json

PATCH = {"content-type": "application/json-patch+json"}
DRAWN = [{"op": "add", "path": "/question/detections/-", "value": {"_cls": "Detection", "label": "cat"}}]


def change(client, sample=MINE, body=DRAWN, dataset=DATASET_ID, rest="", **headers):
    path = f"/dataset/{dataset}/sample/{sample}{rest}"
    return client.patch(path, content=as_json(body), headers=PATCH | headers)


def test_a_change_of_an_item_that_is_held_goes_through_and_is_noted(guarded, client):
    assert change(client).status_code == 200
    path = f"/dataset/{DATASET_ID}/sample/{MINE}"
    assert guarded.behind.seen == [("PATCH", path, as_json(DRAWN))]
    assert guarded.place.noted == [("PATCH", path, as_json(DRAWN), 200)]


def test_what_fiftyone_says_of_it_is_noted(guarded, client):
    guarded.behind.status = 412
    assert change(client).status_code == 412
    assert guarded.place.noted[0][3] == 412


def test_a_change_at_which_fiftyone_raises_is_noted_too(guarded, client):
    guarded.behind.error = RuntimeError("/home/ann")
    answer = change(client)
    assert answer.status_code == 500
    assert "ann" not in answer.text
    assert guarded.place.noted == [("PATCH", f"/dataset/{DATASET_ID}/sample/{MINE}", as_json(DRAWN), 500)]


def test_a_change_that_was_answered_before_is_noted_once(guarded, client):
    guarded.behind.error, guarded.behind.raises_at, guarded.behind.status = RuntimeError(), "end", 500
    assert change(client).status_code == 500
    assert [noted[3] for noted in guarded.place.noted] == [500]


def test_without_a_lease_nothing_is_changed_but_the_draft_is_kept(guarded, client):
    answer = change(client, LOST)
    assert answer.status_code == 423
    assert "no longer yours" in answer.json()["error"]
    assert guarded.reached() == []
    assert guarded.place.noted == [("PATCH", f"/dataset/{DATASET_ID}/sample/{LOST}", as_json(DRAWN), 423)]


def test_a_sample_that_is_not_on_the_desk(guarded, client):
    assert change(client, "d" * 24).status_code == 404
    assert guarded.reached() == []


@pytest.mark.parametrize("dataset", ["f" * 24, "vouch-q-ben", "coco"])
def test_anothers_desk(guarded, client, dataset):
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
    assert guarded.place.noted[0][3] == 403


@pytest.mark.parametrize("op", [{"op": "add", "value": None}, {"op": "replace", "value": None}, {"op": "remove"}])
def test_a_mask_can_be_removed_wherever_it_lies(guarded, client, op):
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
        assert len(guarded.place.noted) == 1

    @pytest.mark.parametrize("field", ["known.detections", "questions.detections", "item"])
    def test_a_label_of_another_field(self, guarded, client, field):
        body = [{"op": "replace", "path": "/label", "value": "dog"}]
        assert change(client, body=body, rest=f"/{field}/{LABEL}").status_code == 403
        assert guarded.reached() == []

    def test_a_label_of_a_dataset_made_of_this_one(self, guarded, client):
        rest = f"/question.detections/{LABEL}?generated_dataset={DESK}"
        assert change(client, body=[], rest=rest).status_code == 403
        assert guarded.reached() == []

    def test_without_a_lease(self, guarded, client):
        assert (
            change(client, LOST, [{"op": "remove", "path": ""}], rest=f"/question.detections/{LABEL}").status_code
            == 423
        )
