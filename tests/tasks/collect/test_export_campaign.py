"""Exporting again without labelling."""

import pytest

from schemas.errors import UserError
from tasks.collect.export import export_campaign


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
