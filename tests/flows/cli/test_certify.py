"""`vouch plan-reviews` and `vouch certify`, from the first sample to a policy, by files as other tools write them.

`vouch simulate`.
"""

import csv
import json
from typing import Any

import pytest

from vouch_labels.flows.cli.certify import _refusal
from vouch_labels.schemas.policy import Certified
from vouch_labels.tasks.policy import write_policy
from vouch_labels.tasks.reviews.log import CertificationTest, record_test
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def campaign(make_images, make_campaign, write_campaign, label, tmp_path):
    """A campaign file whose 60 images are labelled."""
    make_images(tmp_path / "images", 60)
    routing = {"precision": 0.7, "confidence": 0.8, "gate": "delivered", "missed": 0.0}
    sections = {"routing": routing, "run": {"shard_size": 30, "retry_delay_s": 0}}
    label(make_campaign(**sections))
    return write_campaign(**sections)


@pytest.fixture
def answer(vouch, campaign, tmp_path):
    """Fill the tasks of the last plan in, all with one verdict but every `wrong`th, and import them."""

    def fill(wrong=0):
        path = tmp_path / "tasks.csv"
        assert vouch("verdicts", campaign, "--tasks", path).code == 0
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for place, row in enumerate(rows, 1):
            row["verdict"] = "not_an_object" if wrong and place % wrong == 0 else "correct"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        done = vouch("verdicts", campaign, path, "--reviewer", "ann")
        assert done.code == 0, done.err

    return fill


def test_from_the_first_sample_to_a_policy(vouch, campaign, answer, tmp_path):
    out = tmp_path / "first.csv"
    first = vouch("plan-reviews", campaign, "--out", out)
    assert first.code == 0, first.err
    assert f"next 1: vouch verdicts {campaign} FILE\nnext 2: vouch plan-reviews {campaign}" in first.out
    head = out.read_text().splitlines()[0]
    assert "label_id" in head
    assert not {"purpose", "p_correct", "inclusion", "stratum"} & set(head.split(","))
    answer(wrong=9)
    second = vouch("plan-reviews", campaign, "--json")
    assert json.loads(second.out)["stage"] == "certify"
    answer(wrong=9)
    found = vouch("certify", campaign)
    assert found.code == 0, found.err
    assert f"vouch apply {campaign}" in found.out
    figures = json.loads(vouch("certify", campaign, "--json").out)
    assert figures["version"] in found.out
    applied = vouch("apply", campaign, "--no-export", "--plain")
    assert applied.code == 0, applied.err
    assert figures["version"] in applied.out
    queue = vouch("plan-reviews", campaign, "--minutes", 2)
    # The policy covers every label of the run, so none is new, and the sample was all of them.
    assert (queue.code, queue.out) == (2, "")
    assert "nothing is left to ask: every label that waits has been asked about" in queue.err


def test_possible_misses_go_out_and_come_back(vouch, campaign, tmp_path):
    sheet, again = tmp_path / "tasks.csv", tmp_path / "again.csv"
    planned = vouch("plan-reviews", campaign, "--misses", 3, "--out", sheet)
    assert planned.code == 0, planned.err
    assert "3 classes that CLIP sees in an image and no box shows" in planned.out
    assert "a weak hint" in planned.out
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    asked = [row for row in rows if not row["label_id"]]
    assert rows[-3:] == asked
    checked, missed, _ = asked
    checked["verdict"] = "checked"
    missed |= {"verdict": "missed", "x0": 3, "y0": 4, "x1": 20, "y1": 30}
    answered = tmp_path / "answered.csv"
    with answered.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([checked, missed])
    done = vouch("verdicts", campaign, answered, "--reviewer", "ann")
    assert done.code == 0, done.err
    assert vouch("verdicts", campaign, "--tasks", again).code == 0
    with again.open(newline="") as file:
        left = [row for row in csv.DictReader(file) if not row["label_id"]]
    assert [(row["key"], row["class_name"]) for row in left] == [(asked[2]["key"], asked[2]["class_name"])]


def test_nothing_certified_ends_with_a_code_of_its_own(vouch, campaign, answer):
    campaign.write_text(campaign.read_text().replace("precision: 0.7", "precision: 0.97"))
    vouch("plan-reviews", campaign)
    answer(wrong=2)
    vouch("plan-reviews", campaign, "--minutes", 1)
    answer(wrong=1)
    found = vouch("certify", campaign)
    assert found.code == 3
    assert "not certified: " in found.out
    assert found.err.splitlines()[-1].startswith("vouch: nothing could be certified, so no policy was written; ")
    figures = vouch("certify", campaign, "--json")
    assert figures.code == 3
    assert json.loads(figures.out)["version"] is None


def test_an_extension_that_fails_says_that_the_policy_stays(campaign):
    figures: dict[str, Any] = {"groups": (), "more_reviews": None}
    told = _refusal(Certified.model_construct(**figures), campaign)
    assert "could not be extended to the new labels; the policy stays as it is" in told


def test_problems_are_one_line(vouch, campaign):
    for words, problem in (
        (("certify", campaign), "there are no verdicts in "),
        (("plan-reviews", campaign, "--minutes", 0), "--minutes must be more than 0"),
        (("plan-reviews", campaign, "--stage", "certify"), "0 labels are reviewed for fitting, at least 20 are needed"),
        (("plan-reviews", campaign, "--out", "tasks.pdf"), "tasks.pdf"),
    ):
        found = vouch(*words)
        assert found.code == 2
        assert problem in found.err.splitlines()[-1]
        assert found.out == ""


def test_a_server_that_is_gone_takes_nothing(vouch, campaign, answer, monkeypatch):
    vouch("plan-reviews", campaign)
    answer()
    vouch("plan-reviews", campaign)
    answer()
    asked = []
    monkeypatch.setattr(
        "vouch_labels.flows.certify.show_certificates", lambda found: asked.append(found["run"]) or 1 / 0
    )
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert vouch("certify", campaign).code == 0
    assert asked == ["main"]


@pytest.fixture
def labelled(make_images, make_campaign, write_campaign, label, certified, tmp_path):
    """A campaign file, labelled, with a certified policy that accepts every cat."""
    make_images(tmp_path / "images", 5)
    campaign = make_campaign(routing={})
    label(campaign)
    workspace = open_store(campaign.workspace)
    inputs, created = read_current(workspace, "main").inputs, "2026-01-01T00:00:00+00:00"
    look = CertificationTest(
        run="main", look=1, key="0", inputs=inputs, plans=(1, 2), precision=0.95, confidence=0.9, created=created
    )
    record_test(workspace, look, len)
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
    assert answer.out.splitlines()[-3:] == [
        "active policy: certified-1-a (certified: at least 0.95 of accepted labels correct, confidence 0.9)",
        "before: the campaign's thresholds",
        f"workspace: {tmp_path / 'workspace'}",
    ]
    assert "routing" in answer.err
    status = json.loads(vouch("status", labelled, "--json").out)
    assert status["policy"] == "certified-1-a"
    assert "\nactive policy: no thresholds" in vouch("apply", labelled, "--policy", "none").out


def test_refusals_are_one_line(vouch, labelled):
    answer = vouch("apply", labelled, "--policy", "certified-7")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("vouch: --policy: ")


@pytest.fixture
def labelled_with_truth(tmp_path, make_images, write_campaign, make_campaign, label):
    """A campaign of labelled images; the truth knows half of its labels' objects, and one image less."""
    make_images(tmp_path / "images", 40)
    label(make_campaign(export={"undecided": "include"}))
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    gone = document["images"].pop()["id"]
    document["annotations"] = [item for item in document["annotations"][::2] if item["image_id"] != gone]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return write_campaign(), tmp_path / "truth.json"


def test_table_answer_and_json(vouch, labelled_with_truth):
    campaign, truth = labelled_with_truth
    words: tuple[Any, ...] = ("simulate", campaign, "--truth", truth, "--precision", "0.6,0.95", "--gate", "delivered")
    words += ("--reviews", "60,9000", "--draws", 4)
    answer = vouch(*words)
    assert answer.code == 0, answer.err
    for shown in ("labels of 39 images with truth", "no truth for the image", "In brackets: labels that were reviewed"):
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


def test_mistakes(vouch, labelled_with_truth, tmp_path):
    campaign, truth = labelled_with_truth
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
