import hashlib
import json

import pytest

from tasks.models import checkpoints


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_list_names_bundled_and_official_ones(vouch):
    answer = vouch("models", "list")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert sum(" starter " in line for line in lines) == 3
    for name in checkpoints.OFFICIAL:
        assert any(name in line and f"vouch models pull {name}" in line for line in lines)
    assert "hf://owner/repo[@revision]/file" in answer.err


def test_list_for_machines(vouch):
    entries = json.loads(vouch("models", "list", "--json").out)["checkpoints"]
    sam = next(entry for entry in entries if entry["name"] == "sam_vit_b")
    assert sam["bytes"] == 375_042_383
    assert sam["path"] is None
    assert sam["problem"] is None


def test_list_verifies_what_is_here(vouch, tmp_path, monkeypatch):
    entry = checkpoints.OFFICIAL["sam_vit_b"]
    file = tmp_path / "cache" / "checkpoints" / entry.path.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another file")
    entries = json.loads(vouch("models", "list", "--json").out)["checkpoints"]
    problem = next(one for one in entries if one["name"] == "sam_vit_b")["problem"]
    assert hashlib.sha256(b"another file").hexdigest() in problem


def test_check_of_models_that_can_be_used(vouch, write_campaign):
    answer = vouch("models", "check", write_campaign())
    assert answer.code == 0, answer.err
    assert [line.split()[:2] for line in answer.out.splitlines()] == [
        ["detector", "ok:"], ["segmenter", "ok:"], ["scorer", "ok:"],
    ]  # fmt: skip


def test_check_tells_each_problem_and_ends_with_2(vouch, write_campaign, tmp_path):
    models = {"device": "cpu", "detector": {"backend": "nope"}, "segmenter": {"checkpoint": "./missing.pth"},
              "scorer": {"backend": "fake"}}  # fmt: skip
    campaign = write_campaign(models=models)
    answer = vouch("models", "check", campaign, "--json")
    assert answer.code == 2
    reports = {report["kind"]: report["problem"] for report in json.loads(answer.out)["models"]}
    assert "unknown backend 'nope'" in reports["detector"]
    assert "missing.pth" in reports["segmenter"]
    assert reports["scorer"] is None
    assert answer.err.splitlines()[-1].endswith("2 of 3 models cannot be used: detector, segmenter")
    assert "not usable: " in vouch("models", "check", campaign).out


def test_pull_of_a_name_that_is_not_there(vouch):
    answer = vouch("models", "pull", "sam_vit_b", "sam_vit_z")
    assert answer.code == 2
    assert "sam_vit_z: not in the catalog" in answer.err


def test_pull_without_a_network_says_what_to_do(vouch):
    answer = vouch("models", "pull", "sam_vit_b")
    assert answer.code == 2
    assert "give the path of a local copy" in answer.err


def test_pull_of_what_is_here(vouch, tmp_path, monkeypatch):
    file = tmp_path / "cache" / "checkpoints" / "sam_vit_b_01ec64.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    import dataclasses

    entry = dataclasses.replace(checkpoints.OFFICIAL["sam_vit_b"], sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(checkpoints.OFFICIAL, "sam_vit_b", entry)
    answer = vouch("models", "pull", "sam_vit_b")
    assert (answer.code, answer.out) == (0, f"sam_vit_b {file}\n")


def test_pull_of_a_detector_brings_its_tokenizer(vouch, tmp_path, monkeypatch):
    name = "groundingdino_swint_ogc"
    file = tmp_path / "cache" / "checkpoints" / f"{name}.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    import dataclasses

    entry = dataclasses.replace(checkpoints.OFFICIAL[name], sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(checkpoints.OFFICIAL, name, entry)
    without = vouch("models", "pull", name)
    assert without.code == 2
    assert "models.detector.text_encoder" in without.err
    vocabulary = tmp_path / "cache" / "tokenizers" / "bert-base-uncased" / "vocab.txt"
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_text("[PAD]\n")
    assert vouch("models", "pull", name).out == f"{name} {file}\n"
