import json

import pytest

from tasks.certify.rounds import Look, take_look
from tasks.policy import write_policy
from tasks.shard.files import read_current
from tasks.store.open import open_store


@pytest.fixture
def labelled(make_images, make_campaign, write_campaign, label, certified, tmp_path):
    """A campaign file, labelled, with a certified policy that accepts every cat."""
    make_images(tmp_path / "images", 5)
    campaign = make_campaign(routing={})
    label(campaign)
    workspace = open_store(campaign.workspace)
    inputs, created = read_current(workspace, "main").inputs, "2026-01-01T00:00:00+00:00"
    look = Look(number=1, look=1, key="0", inputs=inputs, plans=(1, 2), precision=0.95, confidence=0.9, created=created)
    take_look(workspace, "main", look)
    write_policy(
        workspace, certified({"cat": 0.0, "dog": None}, version="certified-1-a", inputs=inputs, created=created)
    )
    return write_campaign(routing={})


def test_in_figures(vouch, labelled):
    answer = vouch("apply", labelled, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["policy"] == "certified-1-a"
    assert found["classes"]["cat"]["before"]["accepted"] == 0
    assert found["classes"]["cat"]["after"]["accepted"] == found["accepted"] == found["changed"] > 0
    assert found["export"]["accepted"] == found["accepted"]


def test_in_a_table(vouch, labelled, tmp_path):
    answer = vouch("apply", labelled, "--no-export", "--plain")
    assert answer.code == 0, answer.err
    for words in (
        "labels are decided otherwise",
        "accepted before",
        "policy in force: certified-1-a, before: user-",
        "accepted by: certified: at least 0.95 of delivered labels correct, confidence 0.9",
        f"workspace: {tmp_path / 'workspace'}",
    ):
        assert words in answer.out
    assert "data set" not in answer.out
    assert "routing" in answer.err
    status = json.loads(vouch("status", labelled, "--json").out)
    assert status["policy"] == "certified-1-a"
    assert "policy in force: user-" in vouch("apply", labelled, "--policy", "none").out


def test_refusals_are_one_line(vouch, labelled):
    answer = vouch("apply", labelled, "--policy", "certified-7")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("vouch: --policy: ")
