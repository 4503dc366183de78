"""A bucket and a folder with the same images give the same labels and the same data set."""

import json
from pathlib import Path

import pyarrow as pa

from schemas.campaign import Campaign
from tasks.collect.export import export_campaign
from tasks.collect.totals import add_up
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_current, read_part
from tasks.store.open import open_store


def _labels(campaign: Campaign) -> list[dict[str, pa.Table]]:
    from tasks.collect.markers import current_markers

    workspace = open_store(campaign.workspace)
    fingerprint = read_current(workspace, "main").fingerprint
    with Ledger.load(workspace, "main") as ledger:
        markers = list(current_markers(workspace, "main", ledger, fingerprint))
        totals = add_up(workspace, "main", ledger, fingerprint)
    assert totals.pending == 0
    return [{stage: read_part(workspace, part, stage) for stage, part in marker.parts.items()} for marker in markers]


def _in(store, below: str) -> dict[str, object]:
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


def test_images_are_copied_from_the_bucket(tmp_path, make_images, make_campaign, label, moto_store):
    keys = make_images(tmp_path / "images", 3)
    for key in keys:
        moto_store.put(f"raw/{key}", (tmp_path / "images" / key).read_bytes())
    campaign = make_campaign(source=_in(moto_store, "raw"), export={"images": "copy", "name": "with-images"})
    label(campaign)
    moto_store.delete(f"raw/{keys[0]}")
    outcome = export_campaign(campaign)
    assert outcome.images_missed == 1
    folder = tmp_path / "workspace/exports/with-images"
    for key in keys[1:]:
        assert (folder / "images" / key).read_bytes() == (tmp_path / "images" / key).read_bytes()
