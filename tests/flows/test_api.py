"""`import vouch_labels as vouch`: what a notebook calls."""

import json
import re
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pycocotools import mask as coco

import vouch_labels as vouch
from tests.conftest import draw
from tests.processes import HANG_S
from vouch_labels.tasks.labels.convert import LABEL_COLUMNS, SIGNAL_COLUMNS
from vouch_labels.tasks.store.open import FORMAT_FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def campaign(make_images, make_campaign, write_campaign, label, tmp_path):
    """60 labelled images."""
    make_images(tmp_path / "images", 60)
    sections = {
        "routing": {"precision": 0.7, "confidence": 0.8},
        "run": {"shard_size": 25, "retry_delay_s": 0},
        "export": {"undecided": "include"},
    }
    label(make_campaign(**sections))
    return vouch.Campaign(write_campaign(**sections))


def imported_by(statement):
    """Top-level packages that are imported after a statement in a new process."""
    words = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True, timeout=HANG_S)
    return set(done.stdout.split())


def test_importing_it_is_light():
    heavy = {"prefect", "torch", "fiftyone", "transformers", "pyarrow", "polars", "numpy", "supervision"}
    bare = imported_by("import vouch_labels as vouch; dir(vouch)")
    assert not bare & (heavy | {"pydantic", "typer", "rich"})
    assert not imported_by("from vouch_labels import Campaign") & heavy


def test_its_names_are_those_that_it_lists():
    assert set(vouch.__all__) <= set(dir(vouch))
    assert vouch.Campaign.__module__ == "vouch_labels.api"
    assert issubclass(vouch.UserError, vouch.VouchError)
    with pytest.raises(AttributeError, match="has no attribute 'campaign'"):
        vouch.campaign  # noqa: B018 - asking for it raises


@pytest.mark.usefixtures("prefect_server")
class TestRun:
    def test_labels_and_says_how_it_goes_on(self, make_images, write_campaign, tmp_path, capsys):
        make_images(tmp_path / "images", 9)
        campaign = vouch.Campaign(write_campaign())
        summary = campaign.run(export=False)
        assert (summary.images, summary.done, summary.pending, summary.export) == (9, 9, 0, None)
        out, err = capsys.readouterr()
        assert out == ""
        assert "planned: 9 images to work through, 0 done before" in err.splitlines()
        assert campaign.run(progress=False).export.images == 9
        assert capsys.readouterr() == ("", "")
        assert campaign.status().done == 9

    def test_what_the_user_can_repair_is_said_alone(self, write_campaign, capsys):
        campaign = vouch.Campaign(write_campaign())
        with pytest.raises(vouch.UserError, match=r"the folder .*images does not exist; check the uri") as caught:
            campaign.run(progress=False)
        shown = "".join(traceback.format_exception(caught.value))
        assert "prefect" not in shown
        assert shown.count("  File ") == 2
        assert capsys.readouterr() == ("", "")

    def test_an_unforeseen_error_is_one_line_too(self, make_images, write_campaign, monkeypatch, tmp_path):
        make_images(tmp_path / "images", 1)

        def broken(*_, **__):
            raise RuntimeError("the engine\n  is gone")

        monkeypatch.setattr("vouch_labels.flows.run.run_campaign", broken)
        with pytest.raises(vouch.VouchError, match=r"^unexpected RuntimeError: the engine is gone$"):
            vouch.Campaign(write_campaign()).run(progress=False)

    def test_what_is_left_undone_is_an_error(self, make_images, write_campaign, tmp_path, monkeypatch):
        make_images(tmp_path / "images", 2)

        def full(*_, **__):
            raise vouch.VouchError("the disk is full")

        monkeypatch.setattr("vouch_labels.flows.run.process_shard", full)
        campaign = vouch.Campaign(write_campaign(run={"shard_size": 4, "retries": 0, "retry_delay_s": 0}))
        with pytest.raises(vouch.VouchError, match="not labelled: 2 images of 1 shard"):
            campaign.run(progress=False)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_the_samples_of_the_documentation_run(page, write_campaign, tmp_path, monkeypatch, capsys):
    (tmp_path / "birds").mkdir()
    (tmp_path / "images" / "2026").mkdir(parents=True)
    write_campaign("birds/campaign.yaml")
    draw(1).save(tmp_path / "images/2026/heron.jpg")
    monkeypatch.chdir(tmp_path)
    [sample] = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names = {}
    exec(sample, names)
    assert names["frame"].height > 0
    assert len(names["found"]) == names["frame"].height


def test_the_file_is_read_again_by_each_call(campaign, write_campaign):
    assert repr(campaign) == f"Campaign({str(campaign.path)!r})"
    assert campaign.config.run.name == "main"
    write_campaign(run={"name": "other"})
    assert campaign.status().run == "other"
    with pytest.raises(vouch.UserError, match=r"run 'other' in .* has no labels yet"):
        campaign.labels()
    assert campaign.labels(run="main").height > 0
    campaign.path.write_text("classes: 3")
    with pytest.raises(vouch.UserError, match=r"campaign\.yaml:1: "):
        campaign.status()
    with pytest.raises(vouch.UserError, match="no such file"):
        vouch.Campaign("missing.yaml")


def test_labels_are_those_of_the_export(campaign):
    frame = campaign.labels()
    assert frame.schema == pl.Schema(LABEL_COLUMNS | dict.fromkeys(SIGNAL_COLUMNS, pl.Float32()))
    written = json.loads(Path(campaign.export().annotations_file).read_text(encoding="utf-8"))
    keys = {image["id"]: image["file_name"] for image in written["images"]}
    names = {category["id"]: category["name"] for category in written["categories"]}
    exported = pl.DataFrame(
        [(keys[one["image_id"]], names[one["category_id"]], *one["bbox"]) for one in written["annotations"]],
        schema=["key", "class_name", "x0", "y0", "width", "height"], orient="row",
    )  # fmt: skip
    boxes = frame.select(
        "key", "class_name", "x0", "y0", width=pl.col("x1") - pl.col("x0"), height=pl.col("y1") - pl.col("y0")
    )
    order = ["key", "class_name", "x0", "y0"]
    left, right = boxes.sort(order), exported.sort(order)
    assert left["key"].to_list() == right["key"].to_list()
    assert np.allclose(
        left.select("x0", "y0", "width", "height"), right.select("x0", "y0", "width", "height"), atol=0.01
    )
    assert frame["label_id"].is_unique().all()
    assert frame.select(pl.col(SIGNAL_COLUMNS).is_null().all()).row(0).count(True) == 0
    assert frame["detector_score"].is_between(0, 1).all()
    assert frame.to_pandas().shape == frame.shape


def test_labels_of_changed_and_removed_images_are_there_once(campaign, make_images, tmp_path, label):
    before = campaign.labels()
    (tmp_path / "images" / "000.png").unlink()
    make_images(tmp_path / "images", 1, start=1)  # the same content, another time
    label(campaign.config)
    after = campaign.labels()
    assert after["label_id"].is_unique().all()
    assert after.height == campaign.status().labels
    assert sorted(after["label_id"]) == sorted(before.filter(pl.col("key") != "000.png")["label_id"])


def test_detections_of_one_image_and_of_all(campaign):
    frame = campaign.labels()
    found = dict(campaign.iter_detections())
    assert len(found) == 60
    assert sum(len(one) for one in found.values()) == frame.height
    key = frame["key"].mode()[0]
    rows, one = frame.filter(pl.col("key") == key), campaign.detections(key)
    assert np.array_equal(one.xyxy, rows.select("x0", "y0", "x1", "y1").to_numpy())
    assert np.array_equal(one.xyxy, found[key].xyxy)
    assert np.array_equal(one.confidence, rows["detector_score"].to_numpy())
    assert (one.xyxy.dtype, one.confidence.dtype, one.mask.dtype) == (np.float32, np.float32, np.bool_)
    assert [campaign.config.classes[place].name for place in one.class_id] == rows["class_name"].to_list()
    for name in ("label_id", "class_name", "decision", "reviewed", "provenance"):
        assert one.data[name].tolist() == rows[name].to_list()
    for mask, row in zip(one.mask, rows.iter_rows(named=True), strict=True):
        assert mask.shape == (row["height"], row["width"])
        assert np.array_equal(mask, coco.decode({"size": list(mask.shape), "counts": row["rle_counts"]}))
        assert mask.sum() == row["mask_area"]
    with pytest.raises(vouch.UserError, match=r"run 'main' has no labelled image 'nowhere\.png'"):
        campaign.detections("nowhere.png")


def test_a_picture(campaign, tmp_path):
    assert campaign.show("000.png").size == (96, 64)
    assert campaign.show("000.png", side=48).size == (48, 32)
    (tmp_path / "images" / "000.png").write_bytes(b"no picture")
    with pytest.raises(vouch.UserError, match=r"000\.png: cannot be shown: "):
        campaign.show("000.png")


def test_answers_from_a_frame_change_labels(campaign):
    assert campaign.plan_reviews(minutes=1).stage == "first"
    tasks = campaign.review_tasks()
    wrong, right = tasks.row(0, named=True), tasks.row(1, named=True)
    verdicts = pl.when(pl.arange(pl.len()) == 0).then(pl.lit("not_an_object")).otherwise(pl.lit("correct"))
    outcome = campaign.import_verdicts(tasks.with_columns(verdict=verdicts), reviewer="ann")
    assert outcome.imported == tasks.height
    assert campaign.review_tasks().is_empty()
    box = {"x0": 1.0, "y0": 2.0, "x1": 9.0, "y1": 8.0}
    drawn = pl.DataFrame([{"key": right["key"], "verdict": "missed", "class_name": "dog", **box}])
    assert campaign.import_verdicts(drawn, reviewer="ann").imported == 1
    reviewed = dict(campaign.labels().select("label_id", "reviewed").iter_rows())
    assert (reviewed[wrong["label_id"]], reviewed[right["label_id"]]) == ("rejected", "kept")
    assert wrong["label_id"] not in campaign.detections(wrong["key"]).data["label_id"]
    [added] = campaign.labels().filter(pl.col("reviewed") == "added").iter_rows(named=True)
    assert (added["key"], added["class_name"], added["detector_score"], added["sam_iou"]) == (
        right["key"],
        "dog",
        None,
        None,
    )
    one = campaign.detections(right["key"])
    place = one.data["label_id"].tolist().index(added["label_id"])
    assert np.isnan(one.confidence[place])
    assert one.xyxy[place].tolist() == [1, 2, 9, 8]
    assert not one.mask[place].any()
    with pytest.raises(vouch.UserError, match=r"1 of 1 row of the frame .*\nthe frame: row 1: 'perhaps' is no verdict"):
        campaign.import_verdicts(drawn.with_columns(verdict=pl.lit("perhaps")), reviewer="ann")


def test_from_simulated_answers_to_an_applied_policy(campaign, own_truth):
    truth = own_truth()
    assert campaign.simulate_review(truth, 2).stage == "first"
    assert campaign.simulate_review(str(truth), 30).stage == "certify"
    certified = campaign.certify()
    assert certified.simulated
    applied = campaign.apply(certified.version)
    assert (applied.policy, applied.accepted) == (certified.version, campaign.status().accepted)
    assert (
        campaign.export(name="again", splits={"train": 0.5, "val": 0.5, "test": 0}).accepted == applied.export.accepted
    )
    assert campaign.apply("none", export=False).export is None


def test_settings_of_an_export_are_checked(campaign):
    for settings, words in (
        ({"preset": "nix"}, "preset: must be 'coco'"),
        ({"shards": 3}, "shards: unknown key"),
        ({"splits": {"train": 2}}, "splits"),
    ):
        with pytest.raises(vouch.UserError, match=words):
            campaign.export(**settings)


def test_a_newer_workspace_is_refused(campaign, tmp_path):
    (tmp_path / "workspace" / FORMAT_FILE).write_text('{"format": 3}')
    for use in (campaign.labels, campaign.status, campaign.export, lambda: list(campaign.iter_detections())):
        with pytest.raises(vouch.UserError, match="has format 3, and this Vouch reads format 1"):
            use()


def test_the_demo_campaign_is_made_once(tmp_path):
    campaign = vouch.demo_campaign(tmp_path / "demo")
    assert len(list((tmp_path / "demo/images").iterdir())) == 48
    campaign.path.write_text(campaign.path.read_text().replace("precision: 0.85", "precision: 0.9"))
    assert vouch.demo_campaign(str(tmp_path / "demo")).config.routing.precision == 0.9
