"""`vouch plan-reviews` and `vouch certify`, from the first sample to a policy, by files as other tools write them."""

import csv
import json

import pytest


@pytest.fixture
def campaign(make_images, make_campaign, write_campaign, label, tmp_path):
    """A campaign file whose 60 images are labelled."""
    make_images(tmp_path / "images", 60)
    sections = {"routing": {"precision": 0.7, "confidence": 0.8}, "run": {"shard_size": 30, "retry_delay_s": 0}}
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
    for words in (
        "review plan 1 of run main",
        "labels to fit the calibrator to",
        "to be answered, about ",
        f"next 1: vouch verdicts {campaign} FILE",
        f"next 2: vouch plan-reviews {campaign}",
    ):
        assert words in first.out
    head = out.read_text().splitlines()[0]
    assert "label_id" in head
    assert not {"purpose", "p_correct", "inclusion", "stratum"} & set(head.split(","))
    answer(wrong=9)
    second = vouch("plan-reviews", campaign, "--json")
    assert json.loads(second.out)["stage"] == "certify"
    answer(wrong=9)
    found = vouch("certify", campaign)
    assert found.code == 0, found.err
    for words in (
        "look 1",
        "precision A",
        "precision B",
        "not certified:",
        "policy certified-1-",
        "vouch apply CAMPAIGN",
    ):
        assert words in found.out
    assert "(≥0." in found.out
    figures = json.loads(vouch("certify", campaign, "--json").out)
    assert figures["version"] in found.out
    applied = vouch("apply", campaign, "--no-export", "--plain")
    assert applied.code == 0, applied.err
    assert figures["version"] in applied.out
    queue = vouch("plan-reviews", campaign, "--minutes", 2)
    assert queue.code == 0, queue.err
    assert "blind audit" in queue.out


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
    campaign.write_text(campaign.read_text().replace("precision: 0.7", "precision: 0.9"))
    vouch("plan-reviews", campaign)
    answer(wrong=2)
    vouch("plan-reviews", campaign)
    answer(wrong=2)
    found = vouch("certify", campaign)
    assert found.code == 3
    assert "not certified: " in found.out
    assert found.err.splitlines()[-1].startswith("vouch: nothing could be certified, so no policy was written; ")
    figures = vouch("certify", campaign, "--json")
    assert figures.code == 3
    assert json.loads(figures.out)["version"] is None


def test_problems_are_one_line(vouch, campaign):
    for words, problem in (
        (("certify", campaign), "there are no verdicts in "),
        (("plan-reviews", campaign, "--minutes", 0), "--minutes must be more than 0"),
        (("plan-reviews", campaign, "--stage", "certify"), "begin with vouch plan-reviews CAMPAIGN --stage first"),
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
    monkeypatch.setattr("flows.certify.show_certificates", lambda text, run: asked.append(run) or 1 / 0)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert vouch("certify", campaign).code == 0
    assert asked == ["main"]
