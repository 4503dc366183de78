"""`vouch simulate`."""

import json

import pytest


@pytest.fixture
def labelled(tmp_path, make_images, write_campaign, make_campaign, label):
    """A campaign of labelled images; the truth knows half of its labels' objects, and one image less."""
    make_images(tmp_path / "images", 40)
    label(make_campaign(export={"undecided": "include"}))
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    gone = document["images"].pop()["id"]
    document["annotations"] = [item for item in document["annotations"][::2] if item["image_id"] != gone]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return write_campaign(), tmp_path / "truth.json"


def test_table_answer_and_json(vouch, labelled):
    campaign, truth = labelled
    words = ("simulate", campaign, "--truth", truth, "--precision", "0.6,0.95", "--reviews", "60,9000", "--draws", 4)
    answer = vouch(*words)
    assert answer.code == 0, answer.err
    for shown in (
        "played with a simulated reviewer: a plan, not a certificate",
        "labels of 39 images have truth",
        "no truth for the image",
        "4 draws each; the promise: at least T of the delivered labels correct, confidence 0.9",
        "what is automated",
        "what is true",
        "In brackets: labels that were reviewed",
        "automate",
    ):
        assert shown in answer.out
    found = json.loads(vouch(*words, "--json").out)
    assert [(row["precision"], row["reviews"]) for row in found["rows"]] == [
        (0.6, 60),
        (0.6, 9000),
        (0.95, 60),
        (0.95, 9000),
    ]
    assert found["rows"][1]["reviewed"] == found["labels"]
    assert [one["words"] in answer.out for one in found["answers"]] == [True, True]


def test_mistakes(vouch, labelled, tmp_path):
    campaign, truth = labelled
    answer = vouch("simulate", campaign, "--truth", truth, "--precision", "high")
    assert (answer.code, answer.out) == (2, "")
    assert "vouch: --precision: 'high' is no list of numbers" in answer.err
    answer = vouch("simulate", campaign, "--truth", tmp_path / "no.json")
    assert answer.code == 2
    assert "there is no such file" in answer.err


def test_before_the_first_run(vouch, write_campaign, tmp_path):
    answer = vouch("simulate", write_campaign(), "--truth", tmp_path / "truth.json")
    assert answer.code == 2
    assert "has no labels yet; use `vouch run` first" in answer.err
