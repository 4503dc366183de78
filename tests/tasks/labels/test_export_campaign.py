"""Exporting again without labelling.

A bucket and a folder with the same images give the same labels and the same data set.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.labels.totals import add_up
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.run import export_campaign
from vouch_labels.tasks.shard.files import read_current, read_part
from vouch_labels.tasks.store.open import open_store


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
    answers = verdicts(
        {"label_id": plain[0]["label_id"], "verdict": "not_an_object"},
        {"label_id": crowd[0]["label_id"], "verdict": "correct"},
        {"label_id": "a-planted-one", "verdict": "not_an_object"},
        {"key": "002.png", "verdict": "missed", "class_name": "dog", "box": (1.0, 1.0, 4.0, 5.0)},
        {"key": "002.png", "verdict": "checked"},
    )
    write_verdicts(open_store(campaign.workspace), answers)
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
    answers = verdicts(
        {"label_id": one["label_id"], "verdict": "correct"} | counts,
        {"label_id": two["label_id"], "verdict": "bad_box", "box": (3.0, 2.0, 7.0, 9.0)} | counts,
        {"key": "002.png", "verdict": "missed", "class_name": "dog", "box": (3.0, 2.0, 7.0, 9.0)} | counts,
    )
    write_verdicts(open_store(campaign.workspace), answers)
    export_campaign(campaign)
    coco = COCO(path)
    by_verdict = {entry["verdict"]: entry for entry in coco.loadAnns(coco.getAnnIds()) if "verdict" in entry}
    assert sorted(by_verdict) == ["bad_box", "correct", "missed"]
    for entry in by_verdict.values():
        np.testing.assert_array_equal(coco.annToMask(entry), mask)
        assert (entry["area"], entry["provenance"], entry["iscrowd"]) == (27, "human", 0)
    assert by_verdict["correct"]["bbox"] == one["bbox"]
    assert by_verdict["bad_box"]["bbox"] == by_verdict["missed"]["bbox"] == [3, 2, 4, 7]


def _labels(campaign: Campaign) -> list[dict[str, pa.Table]]:
    from vouch_labels.tasks.labels.scan import shards

    workspace = open_store(campaign.workspace)
    fingerprint = read_current(workspace, "main").fingerprint
    with Ledger.load(workspace, "main") as ledger:
        markers = [shard.marker for shard in shards(workspace, "main", ledger, fingerprint)]
        totals = add_up(workspace, "main", ledger, fingerprint)
    assert totals.pending == 0
    return [{stage: read_part(workspace, part, stage) for stage, part in marker.parts.items()} for marker in markers]


def _in(store, below: str) -> dict[str, Any]:
    return {"uri": f"{store.uri.rstrip('/')}/{below}", "s3": store.options.model_dump()}


def test_same_images_same_result(tmp_path, make_images, make_campaign, label, s3_store):
    for key in make_images(tmp_path / "images", 9):
        s3_store.put(f"raw/{key}", (tmp_path / "images" / key).read_bytes())
    s3_store.put("raw/bad.png", b"no image")
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    folder = make_campaign()
    bucket = make_campaign(source=_in(s3_store, "raw"), workspace=_in(s3_store, "out"))
    in_folder, _ = label(folder)
    in_bucket, _ = label(bucket)
    assert in_bucket.labels == in_folder.labels > 0
    assert in_bucket.reasons == in_folder.reasons
    for ours, theirs in zip(_labels(folder), _labels(bucket), strict=True):
        for stage in ("detect", "segment", "score", "route"):
            assert ours[stage].equals(theirs[stage])
        without_etag = [table.drop_columns(["etag"]) for table in (ours["images"], theirs["images"])]
        assert without_etag[0].equals(without_etag[1])
    exports = [
        json.loads(Path(in_folder.export.annotations_file).read_bytes()),
        json.loads(s3_store.get("out/exports/coco/annotations.json").data),
    ]
    for export in exports:
        del export["info"]["date_created"]
    assert exports[0] == exports[1]


def test_a_second_run_on_a_bucket_fetches_only_what_changed(tmp_path, make_images, make_campaign, label, moto_store):
    keys = make_images(tmp_path / "images", 6)
    for key in keys:
        moto_store.put(f"raw/{key}", (tmp_path / "images" / key).read_bytes())
    campaign = make_campaign(source=_in(moto_store, "raw"))
    label(campaign)
    moto_store.put(f"raw/{keys[1]}", (tmp_path / "images" / keys[3]).read_bytes())
    summary, markers = label(campaign)
    assert [marker.counts.images for marker in markers] == [1]
    assert summary.done == 6


def test_a_key_that_no_file_can_have_is_left_out_named_and_the_rest_written(
    tmp_path, make_images, make_campaign, label, moto_store
):
    keys = make_images(tmp_path / "images", 2)
    long = f"{'n' * 260}.png"
    for key in (*keys, long):
        moto_store.put(f"raw/{key}", (tmp_path / "images" / (key if key != long else keys[0])).read_bytes())
    splits = {"train": 0.5, "val": 0.5, "test": 0}
    campaign = make_campaign(source=_in(moto_store, "raw"), export={"images": "copy", "splits": splits})
    summary, _ = label(campaign)
    assert (summary.images, summary.export.images, summary.export.images_missed) == (3, 2, 1)
    assert summary.export.missed == {long: "its name is longer than the file system takes"}
    folder = tmp_path / "workspace/exports/coco"
    for path in folder.glob("*.json"):
        written = json.loads(path.read_text())
        assert all((folder / image["file_name"]).is_file() for image in written["images"])
        assert {entry["image_id"] for entry in written["annotations"]} <= {image["id"] for image in written["images"]}


def test_images_are_copied_from_the_bucket(tmp_path, make_images, make_campaign, label, moto_store):
    keys = make_images(tmp_path / "images", 3)
    for key in keys:
        moto_store.put(f"raw/{key}", (tmp_path / "images" / key).read_bytes())
    campaign = make_campaign(source=_in(moto_store, "raw"), export={"images": "copy", "name": "with-images"})
    label(campaign)
    moto_store.delete(f"raw/{keys[0]}")
    outcome = export_campaign(campaign)
    assert (outcome.images_missed, outcome.missed) == (1, {keys[0]: "gone from the source"})
    folder = tmp_path / "workspace/exports/with-images"
    written = json.loads((folder / "annotations.json").read_text())
    assert [image["file_name"] for image in written["images"]] == [f"images/{key}" for key in keys[1:]]
    assert {entry["image_id"] for entry in written["annotations"]} <= {1, 2}
    for key in keys[1:]:
        assert (folder / "images" / key).read_bytes() == (tmp_path / "images" / key).read_bytes()


def test_several_formats_are_several_data_sets_from_a_bucket_too(
    tmp_path, make_images, make_campaign, label, moto_store
):
    keys = make_images(tmp_path / "images", 4)
    for key in keys:
        moto_store.put(f"raw/deep/{key}", (tmp_path / "images" / key).read_bytes())
    formats = ["coco", "yolo", "huggingface", "webdataset"]
    campaign = make_campaign(source=_in(moto_store, "raw"), export={"formats": formats, "undecided": "blank"})
    summary, _ = label(campaign)
    first, others = summary.export, summary.export.others
    assert [first.formats, *(other.formats for other in others)] == [[name] for name in formats]
    assert [Path(one.uri).name for one in (first, *others)] == formats
    assert len({(one.images, one.annotations) for one in (first, *others)}) == 1
    folder = tmp_path / "workspace/exports"
    assert sorted(path.name for path in (folder / "yolo/images/deep").iterdir()) == keys[: first.images]
    assert (folder / "coco/images/deep" / keys[0]).is_file()
    assert {path.name for path in (tmp_path / "workspace/datasets").iterdir()} == {f"{name}.json" for name in formats}
    moto_store.delete(f"raw/deep/{keys[0]}")
    again = export_campaign(make_campaign(source=_in(moto_store, "raw"), export={"formats": ["huggingface"]}))
    assert again.missed in ({f"deep/{keys[0]}": "gone from the source"}, {})
    assert again.images + again.images_left_out + again.images_missed == 4


def test_a_data_set_is_not_replaced_by_one_of_another_format(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 2)
    label(make_campaign(export={"name": "birds"}))
    kept = (tmp_path / "workspace/exports/birds/annotations.json").read_bytes()
    with pytest.raises(UserError, match=r"exports/birds in .* is a data set in the format coco; choose another"):
        export_campaign(make_campaign(export={"name": "birds", "formats": ["yolo"]}))
    assert (tmp_path / "workspace/exports/birds/annotations.json").read_bytes() == kept
    export_campaign(make_campaign(export={"name": "birds", "formats": ["parquet"]}))
    export_campaign(make_campaign(export={"name": "birds", "formats": ["coco", "yolo"]}))
    assert (tmp_path / "workspace/exports/birds-yolo/data.yaml").is_file()


def test_the_command_says_what_is_left_out_and_how_many_answers_bring_it_back(
    tmp_path, make_images, make_campaign, label, verdicts
):
    make_images(tmp_path / "images", 5)
    cats: dict[str, Any] = {"classes": [{"name": "cat", "accept": {"detector_score": 0}}, "dog"], "routing": {}}
    campaign = make_campaign(**cats, export={"formats": ["yolo"]})
    label(campaign)
    before = export_campaign(campaign)
    assert before.images_left_out > 0
    answers = sum(waits * images for waits, images in before.waiting_of_left_out.items())
    assert before.undecided == answers
    line = f"{before.images_left_out} of 5 images left out: {answers} undecided label"
    assert any(str(block).startswith(line) for block in before.blocks())
    coco = export_campaign(make_campaign(**cats))
    waiting = [
        entry for entry in json.loads(Path(coco.annotations_file).read_bytes())["annotations"] if entry["iscrowd"]
    ]
    assert len(waiting) == answers
    said = [{"label_id": entry["label_id"], "verdict": "correct"} for entry in waiting]
    write_verdicts(open_store(campaign.workspace), verdicts(*said))
    after = export_campaign(campaign)
    assert (after.images_left_out, after.images, after.annotations) == (0, 5, coco.annotations)
