"""`vouch evaluate`.

`vouch report`.

`vouch bench` at its command line.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.text import share
from vouch_labels.tasks.labels.read import labelled_images
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.open import open_store

SAMPLES = Path(__file__).parents[3] / "starter" / "samples" / "ground_truth.json"


@pytest.fixture
def labelled(tmp_path, make_images, write_campaign, make_campaign, label):
    """A campaign of five labelled images, and half of its labels as truth."""
    make_images(tmp_path / "images", 5)
    label(make_campaign(export={"undecided": "include"}))
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    document["annotations"] = document["annotations"][::2]
    document["categories"].append({"id": 77, "name": "[b]wolf"})
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return write_campaign(), tmp_path / "truth.json"


def test_tables_plots_and_json(vouch, labelled, tmp_path):
    campaign, truth = labelled
    answer = vouch("evaluate", campaign, "--truth", truth, "--signal", "sam_iou", "--out", tmp_path / "out", "--all")
    assert answer.code == 0, answer.err
    for words in (
        "5 images compared, paired by file_name; 2 classes, by name",
        "left out: 1 category of the truth alone: [b]wolf (0)",
        "sam_iou: risk and coverage",
        "detector_score: reliability, equal-mass ECE 0.",
        "confusion of accepted labels: rows are labels, columns the truth",
        "(background)",
        f"files in {tmp_path / 'out'}",
    ):
        assert words in answer.out
    assert "comparing" in answer.err
    again = vouch("evaluate", campaign, "--truth", truth, "--signal", "sam_iou", "--json")
    found = json.loads(again.out)
    assert found == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    every = found["accepted_and_review"]
    assert every["precision"] == every["correct"] / every["labels"] < 1
    assert share(every["precision"]) in answer.out


def test_the_tables_that_matter_come_first_and_the_others_on_demand(vouch, labelled):
    campaign, truth = labelled
    short = vouch("evaluate", campaign, "--truth", truth).out
    assert short.count("\u250f") == 3  # the corners of the tables
    for title in ("COCO average precision", "labels at IoU 0.5", "labels by class"):
        assert title in short
    assert short.splitlines()[-1].startswith("--all shows every table")
    asked = vouch("evaluate", campaign, "--truth", truth, "--signal", "sam_iou").out
    assert "sam_iou: risk and coverage" in asked
    assert "detector_score: risk and coverage" not in asked


def test_a_slip_in_a_class_of_the_truth_is_named_by_evaluate_and_report(vouch, labelled, own_truth, tmp_path):
    campaign, _ = labelled

    def change(document):
        document["categories"][0]["name"] = "catt"

    for command in (["evaluate"], ["report", "--out", tmp_path / "page.html"]):
        answer = vouch(*command, campaign, "--truth", own_truth(change))
        assert answer.code == 0, answer.err
        (line,) = (line for line in answer.out.splitlines() if "catt" in line)
        assert line.startswith("left out: 1 category of the truth alone: catt (")
        assert line.endswith("; did you mean cat?)")


def test_a_truth_of_before_a_rename_fits(vouch, labelled, make_campaign, write_campaign, label):
    _, truth = labelled
    classes = [{"name": "tiger", "was": "cat"}, {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}]
    campaign = write_campaign(classes=classes)
    label(load_campaign(campaign), export=False)
    answer = vouch("evaluate", campaign, "--truth", truth, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)["classes"]
    assert found["common"] == ["tiger", "dog"]
    assert found["former"] == {"cat": "tiger"}
    assert "paired by former names of classes: cat is tiger now" in vouch("evaluate", campaign, "--truth", truth).out


def test_many_classes_show_their_confusions(vouch, tmp_path, make_images, write_campaign, make_campaign, label):
    names = [f"class {number}" for number in range(12)]
    make_images(tmp_path / "images", 5)
    label(make_campaign(classes=names, export={"undecided": "include"}))
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    first = document["annotations"][0]["category_id"]
    swapped = {first: first % 12 + 1, first % 12 + 1: first}
    for category in document["categories"]:
        category["id"] = swapped.get(category["id"], category["id"])
    (tmp_path / "truth.json").write_text(json.dumps(document))
    answer = vouch("evaluate", write_campaign(classes=names), "--truth", tmp_path / "truth.json", "--all")
    assert answer.code == 0, answer.err
    assert "most frequent confusions of accepted + review labels" in answer.out
    assert "on an object of another class" in answer.out


def test_problems_are_one_line(vouch, labelled, tmp_path):
    campaign, truth = labelled
    for words, problem in (
        (["--truth", tmp_path / "no.json"], "no.json: there is no such file; give a COCO annotation file"),
        (["--truth", campaign], "campaign.yaml: is no JSON"),
        (["--truth", truth, "--signal", "speed"], "--signal: there is no signal 'speed'; choose among detector_score"),
        (["--truth", truth, "--out", truth], "--out: "),
    ):
        answer = vouch("evaluate", campaign, *words)
        assert answer.code == 2
        assert problem in answer.err.splitlines()[-1]
        assert answer.out == ""
    assert vouch("evaluate", campaign).code == 2


def test_before_the_first_run(vouch, write_campaign):
    answer = vouch("evaluate", write_campaign(), "--truth", SAMPLES)
    assert answer.code == 2
    assert "has no labels yet; use `vouch run` first" in answer.err


@pytest.mark.slow
def test_the_bundled_samples(vouch, tmp_path):
    """The bundled models on the bundled samples, against pycocotools called plainly on the same labels."""
    demo = tmp_path / "demo"
    assert vouch("demo", demo, "--plain").code == 0
    answer = vouch("evaluate", demo / "campaign.yaml", "--truth", SAMPLES, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert (found["images"]["evaluated"], len(found["classes"]["common"])) == (48, 28)
    for kind, name in (("bbox", "boxes"), ("segm", "masks")):
        coco = COCO(str(SAMPLES))
        run = COCOeval(coco, coco.loadRes(_results(coco, demo / "campaign.yaml", kind)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
        measured = [found[name][figure] for figure in ("map", "ap50", "ap75", "ar100")]
        assert measured == pytest.approx([run.stats[place] for place in (0, 1, 2, 8)], abs=1e-9)
        assert found[name]["map"] > 0.3
    accepted, every = found["accepted"], found["accepted_and_review"]
    assert min(accepted["precision"], every["precision"]) > 0.8
    assert every["recall"] > accepted["recall"] > 0.3
    assert every["objects"] == len(coco.anns)


def _results(coco: COCO, path: Path, kind: str) -> list[dict]:
    campaign = load_campaign(path)
    workspace = open_store(campaign.workspace)
    images = {image["file_name"]: image for image in coco.imgs.values()}
    categories = {category["name"]: number for number, category in coco.cats.items()}
    rows = []
    with Ledger.load(workspace, "main") as ledger:
        current = read_current(workspace, "main")
        for image in labelled_images(workspace, "main", ledger, current.fingerprint):
            for label in image.labels:
                x0, y0, x1, y1 = np.array(label.xyxy, np.float64).tolist()
                size = [image.height, image.width]
                shape = {"segmentation": {"size": size, "counts": label.rle_counts}}
                shape = {"bbox": [x0, y0, x1 - x0, y1 - y0]} if kind == "bbox" else shape
                row = {"image_id": images[image.key]["id"], "category_id": categories[label.class_name]}
                rows.append(row | shape | {"score": label.score})
    return rows


def test_a_page_and_its_figures(tmp_path, vouch, make_images, make_campaign, write_campaign, label):
    make_images(tmp_path / "images", 4)
    campaign = write_campaign()
    label(make_campaign())
    out = tmp_path / "page.html"
    answer = vouch("report", campaign, "--out", out, "--plain")
    assert answer.code == 0, answer.err
    assert str(out) in answer.out
    assert "no precision is guaranteed" in answer.out
    assert out.read_text().startswith("<!DOCTYPE html>")
    out.unlink()
    figures = json.loads(vouch("report", campaign, "--json", "--plain").out)
    assert figures["policy"]["standing"] == "user_thresholds"
    assert figures["number"] == 1  # nothing has changed since
    assert not out.exists()


def test_the_page_lies_beside_the_campaign(
    tmp_path, vouch, make_images, make_campaign, write_campaign, label, monkeypatch
):
    make_images(tmp_path / "images", 2)
    campaign = write_campaign()
    label(make_campaign())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    answer = vouch("report", campaign, "--plain")
    assert answer.code == 0, answer.err
    assert f"report: {tmp_path / 'report.html'}" in answer.out
    assert (tmp_path / "report.html").is_file()
    assert vouch("report", campaign, "--plain", "-o", "mine.html").code == 0
    assert [path.name for path in elsewhere.iterdir()] == ["mine.html"]


def test_report_before_the_first_run(vouch, write_campaign):
    answer = vouch("report", write_campaign())
    assert answer.code == 2
    assert "vouch run" in answer.err


def test_a_campaign_is_measured_for_people_and_for_machines(vouch, tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 6)
    done = vouch("bench", write_campaign(), "--count", "5")
    assert done.code == 0
    assert "5 images of" in done.out
    assert "images/s from the file to the written labels" in done.out
    assert "bottleneck: " in done.out.splitlines()[-1]
    done = vouch("bench", write_campaign(), "--images", str(tmp_path / "images"), "--json")
    report = json.loads(done.out)
    assert report["images"] == 6
    assert report["source"] == str(tmp_path / "images")


def test_a_folder_that_is_none_is_refused(vouch, tmp_path):
    done = vouch("bench", "--images", str(tmp_path / "gone"))
    assert done.code == 2
    assert "is no folder" in done.err
