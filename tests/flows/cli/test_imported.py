"""`vouch import` and `vouch audit`: labels that exist are taken, and the doubtful ones come first."""

import csv
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from vouch_labels.flows.cli.app import app
from vouch_labels.starter.scenes.scene import generate_scenes


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """Drawn scenes with labels in which four are wrong: kind -> annotation, or image and class of the missing one."""
    folder = tmp_path_factory.mktemp("data-set")
    truth = json.loads(generate_scenes(folder / "images", 12, seed=91).read_text())
    annotations, file_of = truth["annotations"], {image["id"]: image["file_name"] for image in truth["images"]}
    clear = [one for one in annotations if one["attributes"]["occlusion"] < 0.1 and min(one["bbox"][2:]) > 40]
    by_image = {one["image_id"]: one for one in clear}
    wrong_class, bad_box, twice, missing = list(by_image.values())[:4]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    planted = {
        "class": (f"annotation {wrong_class['id']}", file_of[wrong_class["image_id"]]),
        "box": (f"annotation {bad_box['id']}", file_of[bad_box["image_id"]]),
        "duplicate": ("annotation 9999", file_of[twice["image_id"]]),
        "missing": ("", file_of[missing["image_id"]], names[missing["category_id"]]),
    }
    others = [number for number in names if number != wrong_class["category_id"]]
    wrong_class["category_id"] = others[len(others) // 2]
    x, y, width, height = bad_box["bbox"]
    bad_box["bbox"] = [x, y, width / 2, height]
    x, y, width, height = twice["bbox"]
    annotations.append({**twice, "id": 9999, "bbox": [x + 1, y + 1, width - 2, height - 2]})
    annotations.remove(missing)
    for one in annotations:
        del one["segmentation"], one["attributes"]
    (folder / "labels.json").write_text(json.dumps(truth))
    return folder, planted


def test_an_audit_ranks_what_is_wrong_first(data_set, tmp_path, monkeypatch):
    folder, planted = data_set
    monkeypatch.chdir(tmp_path)
    done = run("audit", folder / "labels.json", "--source", folder / "images", "--plain")
    assert "likely wrong (score .5 or more): class" in done.output
    assert "vouch plan-reviews labels-audit/measure.yaml --images 40" in done.output
    with (tmp_path / "labels-audit/suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    first = {(row["kind"], row["name"], row["key"]) for row in rows[:12]}
    for kind, (name, key, *_) in planted.items():
        assert (kind, name, key) in first, kind
    [missing] = [row for row in rows if (row["kind"], row["key"]) == ("missing", planted["missing"][1])][:1]
    assert missing["class_name"] == planted["missing"][2]
    with Image.open(tmp_path / "labels-audit/suspects.jpg") as picture:
        assert picture.width > 1000
    # Again, nothing is looked at: the same answer.
    again = json.loads(run("audit", folder / "labels.json", "--source", folder / "images", "--plain", "--json").stdout)
    assert again["imported"]["labels"] > 20
    assert again["first"][0]["rank"] == 1
    # The campaign of the labels alone, for people.
    assert "imports/labels.json" in {
        str(path.relative_to(tmp_path / "labels-audit/workspace")) for path in tmp_path.rglob("imports/*.json")
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["audit", "no.json", "--source", "."], "no.json: there is no such file; give a COCO annotation file"),
        (["import", "campaign.yaml"], "name the file of labels to import, or say --remove to have none"),
        (["import", "campaign.yaml", "a.json", "--remove"], "name the file of labels to import, or say --remove"),
        (["import", "campaign.yaml", "a.json", "--class", "cat"], "--class 'cat': write the category of the file, ="),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, write_campaign, words, line):
    write_campaign()
    monkeypatch.chdir(tmp_path)
    assert line in run(*words, code=2).stderr


def test_labels_are_imported_and_removed(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 2)
    campaign, file = write_campaign(), tmp_path / "labels.json"
    labels = {
        "images": [{"id": 1, "file_name": "000.png"}],
        "categories": [{"id": 1, "name": "kitty"}, {"id": 2, "name": "of no annotation"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    }
    file.write_text(json.dumps(labels))
    assert '--class "kitty=left out"' in run("import", campaign, file, "--plain", code=2).stderr
    done = run("import", campaign, file, "--class", "kitty=cat", "--plain")
    assert "1 label of 1 image taken from labels.json" in done.output
    assert f"next: vouch run {campaign}" in done.output
    assert json.loads(run("import", campaign, file, "--json", "--plain").stdout)["renamed"] == {"kitty": "cat"}
    run("import", campaign, "--remove")
    assert not (tmp_path / "workspace/imports/main.json").exists()
