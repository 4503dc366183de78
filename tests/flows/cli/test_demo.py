"""The end of `vouch demo`: simulated reviews."""

import json

import pytest
from PIL import Image

from vouch_labels.flows.cli.demo import review, review_blocks, review_json
from vouch_labels.tasks.certify.active import active_version
from vouch_labels.tasks.store.open import open_store

# Whatever the scores, one label of five is wrong here: people who correct those that wait make up for it.
ROUTING = {"precision": 0.7, "gate": "delivered", "missed": 0.0}


@pytest.fixture
def labelled(tmp_path, make_images, make_campaign, label):
    """A labelled campaign, and a truth in which four labels of five are right."""
    make_images(tmp_path / "images", 60)
    campaign = make_campaign(export={"undecided": "include"}, routing=ROUTING, run={"shard_size": 60})
    label(campaign)
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    document["annotations"] = [item for place, item in enumerate(document["annotations"]) if place % 5]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return campaign, tmp_path / "truth.json"


def said(done) -> str:
    """The lines, without the tables."""
    return "\n".join(block for block in review_blocks(done) if isinstance(block, str))


def test_a_round_certifies_applies_and_says_who_answered(labelled):
    campaign, truth = labelled
    done = review(campaign, truth)
    words, found = said(done), review_json(done)["simulated_review"]
    version = found["certified"]["version"]
    assert active_version(open_store(campaign.workspace), campaign.run.name) == version
    assert found["certified"]["simulated"]
    assert found["applied"]["accepted"] > 0
    assert found["contract"]["held"] is True
    for shown in (
        "A SIMULATED REVIEWER, who answers from the samples' ground truth",
        "review plan 1:",
        "review plan 2:",
        "this certifies nothing",
        "Precision 0.7 is the demo's choice, as the samples are few: 0.95 takes",
        f"applied without a model: {found['applied']['accepted']:,} of",
        "the guarantee held",
        "Nothing is guaranteed by this policy",
    ):
        assert shown in words
    again = review(campaign, truth)
    assert review_json(again) == {"simulated_review": None, "why_not": again}
    assert "they are not simulated again" in said(again)


def test_an_edited_demo_whose_truth_does_not_fit_goes_without(labelled, tmp_path):
    campaign, truth = labelled
    document = json.loads(truth.read_text())
    document["categories"] = [{"id": 1, "name": "owl"}]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    assert "no simulated review:" in said(review(campaign, other))


def test_an_edited_demo_that_asks_for_too_much_says_so(labelled):
    campaign, truth = labelled
    strict = campaign.model_copy(update={"routing": campaign.routing.model_copy(update={"precision": 0.99})})
    done = review(strict, truth)
    assert "could certify nothing even if all of it were correct" in said(done)
    found = review_json(done)["simulated_review"]
    assert (found["certified"], found["applied"]) == (None, None)
    assert "no test was spent" in found["refusal"]


def test_scenes_are_drawn_with_their_truth(vouch, tmp_path):
    answer = vouch("scenes", tmp_path / "out", "--count", 2, "--seed", 4, "--smallest", 64, "--largest", 80)
    assert answer.code == 0, answer.err
    truth = json.loads((tmp_path / "out" / "ground_truth.json").read_text())
    for image in truth["images"]:
        assert Image.open(tmp_path / "out" / image["file_name"]).size == (image["width"], image["height"])
    assert "2 images in" in answer.out


def test_another_style(vouch, tmp_path):
    small = ("--count", 1, "--smallest", 64, "--largest", 64)
    assert vouch("scenes", tmp_path / "out", *small, "--style", "twitter").code == 0
    assert json.loads((tmp_path / "out" / "ground_truth.json").read_text())["info"]["style"] == "twitter"
    answer = vouch("scenes", tmp_path / "other", *small, "--style", "oil")
    assert answer.code == 2
    assert "unknown style 'oil': choose one of noto, twitter" in answer.err


def test_mistakes(vouch, tmp_path):
    assert vouch("scenes", tmp_path / "out", "--split", "nothing").code == 2
    assert vouch("scenes", tmp_path / "out", "--count", "0").code == 2
