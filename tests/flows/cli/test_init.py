import json

import pytest

from schemas.campaign_file import load_campaign


def test_it_writes_a_campaign_that_loads(vouch, tmp_path):
    answer = vouch("init", tmp_path / "cats", "--class", "cat", "--class", "traffic light", "--source", "s3://b/photos")
    assert answer.code == 0
    assert str(tmp_path / "cats" / "campaign.yaml") in answer.out
    campaign = load_campaign(tmp_path / "cats" / "campaign.yaml")
    assert [entry.name for entry in campaign.classes] == ["cat", "traffic light"]
    assert campaign.source.uri == "s3://b/photos"
    assert campaign.workspace.uri == str(tmp_path / "cats" / "workspace")
    assert campaign.routing.accept is None
    text = (tmp_path / "cats" / "campaign.yaml").read_text()
    for setting in ("\n  precision: 0.95\n", "\n  confidence: 0.9\n", "\n  gate: delivered\n", "vouch plan-reviews"):
        assert setting in text
    schema = json.loads((tmp_path / "cats" / "campaign.schema.json").read_text())
    assert "routing" in schema["properties"]
    assert "$schema=campaign.schema.json" in (tmp_path / "cats" / "campaign.yaml").read_text().splitlines()[0]


def test_a_folder_is_relative_to_where_it_is_typed(vouch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert vouch("init", "deep/cats", "--source", "photos").code == 0
    assert load_campaign(tmp_path / "deep" / "cats" / "campaign.yaml").source.uri == str(tmp_path / "photos")
    assert vouch("init", "other").code == 0
    assert load_campaign(tmp_path / "other" / "campaign.yaml").source.uri == str(tmp_path / "other" / "images")


def test_it_overwrites_only_by_force(vouch, tmp_path):
    assert vouch("init", tmp_path, "--class", "cat").code == 0
    answer = vouch("init", tmp_path, "--class", "dog")
    assert answer.code == 2
    assert "--force" in answer.err
    assert load_campaign(tmp_path / "campaign.yaml").classes[0].name == "cat"
    assert vouch("init", tmp_path, "--class", "dog", "--force").code == 0
    assert load_campaign(tmp_path / "campaign.yaml").classes[0].name == "dog"


@pytest.mark.parametrize("classes", [["a", "A"], [""]])
def test_bad_classes_write_nothing(vouch, tmp_path, classes):
    answer = vouch("init", tmp_path / "x", *(word for name in classes for word in ("--class", name)))
    assert answer.code == 2
    assert answer.err.startswith("vouch: --class: ")
    assert not (tmp_path / "x").exists()


def test_a_place_that_cannot_be_written(vouch, tmp_path):
    (tmp_path / "file").touch()
    answer = vouch("init", tmp_path / "file" / "x")
    assert answer.code == 2
    assert "cannot be written" in answer.err
