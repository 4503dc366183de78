"""Exporting again without labelling."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from schemas.errors import UserError
from tasks.collect.export import export_campaign
from tasks.reviews.verdicts import write_verdicts
from tasks.store.open import open_store


def test_nothing_is_exported_before_a_run(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 1)
    with pytest.raises(UserError, match="has no labels yet; use `vouch run` first"):
        export_campaign(make_campaign())


def test_another_form_of_the_same_labels(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 5)
    summary, _ = label(make_campaign())
    dropped = export_campaign(make_campaign(export={"name": "sure", "undecided": "drop"}))
    assert dropped.annotations == dropped.accepted == summary.accepted
    assert (tmp_path / "workspace/exports/sure/annotations.json").is_file()
    assert (tmp_path / "workspace/exports/coco/annotations.json").is_file()


def test_another_runs_data_set_is_not_overwritten(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 3)
    label(make_campaign())
    kept = (tmp_path / "workspace/exports/coco/annotations.json").read_bytes()
    with pytest.raises(UserError, match=r"exports/coco in .* is the data set of run 'main'; choose another"):
        label(make_campaign(run={"name": "other"}))
    label(make_campaign(run={"name": "other"}, export={"name": "other"}))
    assert (tmp_path / "workspace/exports/coco/annotations.json").read_bytes() == kept


def test_verdicts_shape_the_data_set(tmp_path, make_images, make_campaign, label, verdicts):
    make_images(tmp_path / "images", 5)
    campaign = make_campaign(classes=[{"name": "cat", "accept": {"detector_score": 0}}, "dog"], routing={})
    label(campaign)
    folder = tmp_path / "workspace/exports/coco"
    before = json.loads((folder / "annotations.json").read_text())
    plain = [entry for entry in before["annotations"] if not entry["iscrowd"]]
    crowd = [entry for entry in before["annotations"] if entry["iscrowd"]]
    said = verdicts(
        {"label_id": plain[0]["label_id"], "verdict": "not_an_object"},
        {"label_id": crowd[0]["label_id"], "verdict": "correct"},
        {"label_id": "a-planted-one", "verdict": "not_an_object"},
        {"key": "002.png", "verdict": "missed", "class_name": "dog", "box": (1.0, 1.0, 4.0, 5.0)},
        {"key": "002.png", "verdict": "checked"},
    )
    write_verdicts(open_store(campaign.workspace), said)
    outcome = export_campaign(campaign)
    assert (outcome.human, outcome.rejected, outcome.accepted) == (2, 1, len(plain) - 1)
    after = json.loads((folder / "annotations.json").read_text())
    entries = {entry["label_id"]: entry for entry in after["annotations"]}
    assert plain[0]["label_id"] not in entries
    assert not any("planted" in name or "ann" in json.dumps(entry) for name, entry in entries.items())
    confirmed = entries[crowd[0]["label_id"]]
    assert (confirmed["iscrowd"], confirmed["provenance"], confirmed["verdict"]) == (0, "human", "correct")
    (drawn,) = [entry for name, entry in entries.items() if name.startswith("missed-")]
    assert (drawn["bbox"], drawn["segmentation"], drawn["area"]) == ([1, 1, 3, 4], [], 12)
    assert (drawn["score"], drawn["decision"], drawn["policy"], drawn["image_id"]) == (None, None, None, 3)
    kept = (folder / "annotations.json").read_bytes().partition(b'"images"')[2]
    export_campaign(campaign)
    assert (folder / "annotations.json").read_bytes().partition(b'"images"')[2] == kept


def test_masks_of_people_are_those_of_the_data_set(tmp_path, make_images, make_campaign, label, verdicts):
    make_images(tmp_path / "images", 5)
    campaign = make_campaign()
    label(campaign)
    path = tmp_path / "workspace/exports/coco/annotations.json"
    one, two, *_ = json.loads(path.read_text())["annotations"]
    mask = np.zeros((64, 96), np.uint8, order="F")
    mask[2:9, 3:7] = 1
    mask[4, 4] = 0
    counts = {"rle_counts": mask_utils.encode(mask)["counts"]}
    said = verdicts(
        {"label_id": one["label_id"], "verdict": "correct"} | counts,
        {"label_id": two["label_id"], "verdict": "bad_box", "box": (3.0, 2.0, 7.0, 9.0)} | counts,
        {"key": "002.png", "verdict": "missed", "class_name": "dog", "box": (3.0, 2.0, 7.0, 9.0)} | counts,
    )
    write_verdicts(open_store(campaign.workspace), said)
    export_campaign(campaign)
    coco = COCO(path)
    spoken = {entry["verdict"]: entry for entry in coco.loadAnns(coco.getAnnIds()) if "verdict" in entry}
    assert sorted(spoken) == ["bad_box", "correct", "missed"]
    for entry in spoken.values():
        np.testing.assert_array_equal(coco.annToMask(entry), mask)
        assert (entry["area"], entry["provenance"], entry["iscrowd"]) == (27, "human", 0)
    assert spoken["correct"]["bbox"] == one["bbox"]
    assert spoken["bad_box"]["bbox"] == spoken["missed"]["bbox"] == [3, 2, 4, 7]
