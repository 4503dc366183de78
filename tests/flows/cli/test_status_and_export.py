import json

import pytest

from tasks.store.lock import WorkspaceLock
from tasks.store.open import open_store


@pytest.fixture
def labelled(tmp_path, make_images, write_campaign, make_campaign, label):
    """A campaign of ten images, one broken, labelled and exported."""
    make_images(tmp_path / "images", 9)
    (tmp_path / "images" / "x.png").touch()
    label(make_campaign())
    return write_campaign()


def test_status_before_the_first_run(vouch, write_campaign):
    answer = vouch("status", write_campaign(), "--json")
    found = json.loads(answer.out)
    assert answer.code == 0
    assert (found["images"], found["shards"], found["policy"], found["export"]) == (0, 0, None, None)
    assert found["next"] == "label the images: vouch run CAMPAIGN"
    assert found["classes"] == {"cat": {"accepted": 0, "review": 0}, "dog": {"accepted": 0, "review": 0}}


def test_status_after_a_run(vouch, labelled):
    found = json.loads(vouch("status", labelled, "--json").out)
    assert (found["images"], found["done"], found["failed"], found["pending"]) == (10, 9, 1, 0)
    assert found["shards"] == found["shards_done"] == 3
    assert found["reasons"] == {"acquire: the file has zero bytes": 1}
    assert found["labels"] == found["accepted"] + found["review"] > 0
    assert sum(counts["accepted"] for counts in found["classes"].values()) == found["accepted"]
    assert found["export"]["images"] == 9
    assert found["running"] is None
    assert found["in_force"]["version"] == found["policy"]
    assert (found["reviews"]["open"], found["reviews"]["verdicts"]) == (0, 0)
    text = vouch("status", labelled).out
    assert f"policy in force: {found['policy']} (user thresholds, not certified)" in text
    assert "0 open, 0 plans so far" in text
    assert f"next: {found['next'].replace('CAMPAIGN', str(labelled))}" in text
    for words in ("3 of 3 done", "1 image failed: acquire: the file has zero bytes", found["export"]["uri"], "cat"):
        assert words in text


def test_failed_images_are_named(vouch, labelled, write_campaign):
    assert vouch("status", labelled, "--failed").out == "x.png\tacquire\tthe file has zero bytes\n"
    found = json.loads(vouch("status", labelled, "--failed", "--json").out)
    assert found == {"failed": [{"key": "x.png", "step": "acquire", "reason": "the file has zero bytes"}]}
    fresh = write_campaign("fresh.yaml", workspace="fresh")
    assert vouch("status", fresh, "--failed").out == ""
    assert "not begun: vouch run begins it" in vouch("status", fresh).out


def test_status_shows_what_is_pending_after_a_change_and_who_runs(
    vouch, labelled, make_campaign, make_images, tmp_path
):
    make_images(tmp_path / "images", 2, start=50)
    campaign = make_campaign()
    from tasks.run import CampaignRun

    with CampaignRun(campaign) as run:
        run.plan()
        found = json.loads(vouch("status", labelled, "--json").out)
    assert (found["images"], found["pending"], found["shards_done"], found["shards"]) == (12, 2, 3, 4)
    assert found["next"] == "the run goes on; look again when it has ended"
    assert "2 images that are pending: vouch run" in vouch("status", labelled).out
    assert found["running"].startswith("process ")
    with WorkspaceLock(open_store(campaign.workspace), "main"):
        assert "running: process" in vouch("status", labelled).out


def test_status_of_a_broken_campaign(vouch, write_campaign):
    answer = vouch("status", write_campaign(run={"retries": -1}))
    assert answer.code == 2
    assert "run.retries: must be at least 0, not -1" in answer.err


def test_export_again_under_another_name(vouch, labelled, tmp_path):
    words = (
        "--name",
        "mine",
        "--preset",
        "zero_based",
        "--undecided",
        "drop",
        "--images",
        "copy",
        "--splits",
        "0.5,0.5,0",
    )
    answer = vouch("export", labelled, *words, "--seed", "3", "--json")
    assert answer.code == 0, answer.err
    outcome = json.loads(answer.out)
    folder = tmp_path / "workspace" / "exports" / "mine"
    assert outcome["annotations_file"] == str(folder / "annotations.json")
    document = json.loads((folder / "annotations.json").read_text())
    assert [category["id"] for category in document["categories"]] == [0, 1]
    assert len(document["annotations"]) == outcome["annotations"] == outcome["accepted"]
    assert (folder / "images" / "000.png").is_file()
    splits = [json.loads((folder / f"annotations_{name}.json").read_text())["images"] for name in ("train", "val")]
    assert sum(map(len, splits)) == len(document["images"]) == 9
    assert not (folder / "annotations_test.json").exists()
    assert "data set: " in vouch("export", labelled, "--splits", "none").out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--preset", "yolo"], "--preset: must be 'coco', 'detectron2'"),
        (
            ["--undecided", "what", "--images", "no"],
            "--images: must be 'none', 'link' or 'copy', not 'no'; --undec",
        ),
        (["--name", "../x"], "--name: '../x' is not a name"),
        (["--splits", "0.8,0.2"], "--splits: '0.8,0.2' is not three shares"),
        (["--splits", "0.8,0.1,0.3"], "--splits: train + val + test must be 1, not 1.2"),
        (["--splits", "0.8,0.1,x"], "--splits.test: must be a number, not 'x'"),
        (["--seed", "4"], "--seed: there are no splits to seed"),
    ],
)
def test_export_refuses_wrong_options(vouch, write_campaign, words, problem):
    answer = vouch("export", write_campaign(), *words)
    assert answer.code == 2
    assert answer.err.startswith(f"vouch: {problem}")
    assert answer.err.count("\n") == 1


def test_export_before_a_run(vouch, write_campaign):
    answer = vouch("export", write_campaign())
    assert answer.code == 2
    assert "has no labels yet; use `vouch run` first" in answer.err
