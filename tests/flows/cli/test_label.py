"""Labelling from the command line, and a preview of it."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import FAKE_MODELS
from tests.processes import HANG_S
from vouch_labels.tasks.models import checkpoints
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import open_store

WITHOUT_PREFECT = """
import json, sys
sys.modules["prefect"] = None
from typer.testing import CliRunner
from vouch_labels.flows.cli.app import app
results = [CliRunner().invoke(app, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(done.exit_code, done.stdout, done.stderr) for done in results]))
"""


@pytest.fixture
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.usefixtures("nothing_cached")
def test_list_names_bundled_and_official_ones(vouch):
    answer = vouch("models", "list")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert sum(" starter " in line for line in lines) == 3
    for name in checkpoints.OFFICIAL:
        assert any(name in line and f"vouch models pull {name}" in line for line in lines)
    assert "hf://owner/repo[@revision]/file" in answer.err
    assert lines[-1].startswith("the bundled models (starter) know 28 drawn things: dog, cat, ")
    assert "umbrella" in lines[-1]


@pytest.mark.usefixtures("nothing_cached")
def test_list_for_machines(vouch):
    found = json.loads(vouch("models", "list", "--json").out)
    assert len(found["drawn_things"]) == 28
    entries = found["checkpoints"]
    sam = next(entry for entry in entries if entry["name"] == "sam_vit_b")
    assert sam["bytes"] == 375_042_383
    assert sam["path"] is None
    assert sam["problem"] is None


@pytest.mark.usefixtures("nothing_cached")
def test_list_verifies_what_is_here(vouch, tmp_path, monkeypatch):
    entry = checkpoints.OFFICIAL["sam_vit_b"]
    file = tmp_path / "cache" / "checkpoints" / entry.uri.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another file")
    entries = json.loads(vouch("models", "list", "--json").out)["checkpoints"]
    problem = next(one for one in entries if one["name"] == "sam_vit_b")["problem"]
    assert hashlib.sha256(b"another file").hexdigest() in problem


@pytest.mark.usefixtures("nothing_cached")
def test_check_says_what_bundled_models_are(vouch, write_campaign):
    models = FAKE_MODELS | {"scorer": {"batch_size": 1}}
    classes = ["Blue car", "kat", {"name": "hound", "prompts": ["wolf", "puppy"]}, "forklift"]
    answer = vouch("models", "check", write_campaign(models=models, classes=classes))
    assert answer.code == 0, answer.err
    *_, last, unknown = answer.out.splitlines()
    assert unknown.startswith("the bundled models do not know kat (did you mean cat?), forklift; ")
    assert last.startswith("bundled models (scorer): they know 28 drawn things")
    told = json.loads(vouch("models", "check", write_campaign(models=models), "--json").out)["models"]
    assert [model["bundled"] for model in told] == [False, False, True]


@pytest.mark.usefixtures("nothing_cached")
def test_check_of_models_that_can_be_used(vouch, write_campaign):
    answer = vouch("models", "check", write_campaign())
    assert answer.code == 0, answer.err
    assert [line.split()[:2] for line in answer.out.splitlines()] == [
        ["detector", "ok:"], ["segmenter", "ok:"], ["scorer", "ok:"],
    ]  # fmt: skip


@pytest.mark.usefixtures("nothing_cached")
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


@pytest.mark.usefixtures("nothing_cached")
def test_a_package_that_raises_does_not_end_the_check(vouch, write_campaign, monkeypatch):
    def raises(config, runtime):
        raise RuntimeError("header\ntoo small")

    monkeypatch.setattr("vouch_labels.tasks.models.catalog.load_segmenter", raises)
    answer = vouch("models", "check", write_campaign(), "--json")
    assert answer.code == 2
    reports = {report["kind"]: report["problem"] for report in json.loads(answer.out)["models"]}
    assert reports == {"detector": None, "segmenter": "unexpected RuntimeError: header too small", "scorer": None}


@pytest.mark.usefixtures("nothing_cached")
def test_pull_of_a_name_that_is_not_there(vouch):
    answer = vouch("models", "pull", "sam_vit_b", "sam_vit_z")
    assert answer.code == 2
    assert "sam_vit_z: not in the catalog" in answer.err


@pytest.mark.usefixtures("nothing_cached")
def test_pull_without_a_network_says_what_to_do(vouch):
    answer = vouch("models", "pull", "sam_vit_b")
    assert answer.code == 2
    assert "give the path of a local copy" in answer.err


@pytest.mark.usefixtures("nothing_cached")
def test_pull_of_what_is_here(vouch, tmp_path, monkeypatch):
    file = tmp_path / "cache" / "checkpoints" / "sam_vit_b_01ec64.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    import dataclasses

    entry = dataclasses.replace(checkpoints.OFFICIAL["sam_vit_b"], sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(checkpoints.OFFICIAL, "sam_vit_b", entry)
    answer = vouch("models", "pull", "sam_vit_b")
    assert (answer.code, answer.out) == (0, f"sam_vit_b {file}\n")


@pytest.mark.usefixtures("nothing_cached")
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


@pytest.fixture
def labelled(tmp_path, make_images, write_campaign, make_campaign, label):
    """A campaign of ten images, one broken, labelled and exported."""
    make_images(tmp_path / "images", 9)
    (tmp_path / "images" / "x.png").touch()
    label(make_campaign())
    return write_campaign()


def test_status_before_the_first_run(vouch, write_campaign):
    answer = vouch("status", write_campaign(), "--json")
    found = json.loads(answer.out)
    assert answer.code == 0
    assert (found["images"], found["shards"], found["policy"], found["export"]) == (0, 0, None, None)
    assert found["next"] == "label the images: vouch run CAMPAIGN"
    assert found["classes"] == {"cat": {"accepted": 0, "review": 0}, "dog": {"accepted": 0, "review": 0}}


def test_status_after_a_run(vouch, labelled):
    found = json.loads(vouch("status", labelled, "--json").out)
    assert (found["images"], found["done"], found["failed"], found["pending"]) == (10, 9, 1, 0)
    assert found["shards"] == found["shards_done"] == 3
    assert found["reasons"] == {"acquire: the file has zero bytes": 1}
    assert found["labels"] == found["accepted"] + found["review"] > 0
    assert sum(counts["accepted"] for counts in found["classes"].values()) == found["accepted"]
    assert found["export"]["images"] == 9
    assert found["running"] is None
    assert found["in_force"]["version"] == found["policy"]
    assert (found["reviews"]["open"], found["reviews"]["verdicts"]) == (0, 0)
    text = vouch("status", labelled).out
    assert "active policy: manual thresholds, not certified" in text
    assert "0 open, 0 plans so far" in text
    assert f"next: {found['next'].replace('CAMPAIGN', str(labelled))}" in text
    assert found["failed_images"] == [["x.png", "acquire", "the file has zero bytes"]]
    assert "    x.png: acquire: the file has zero bytes" in text.splitlines()
    assert "--failed names" not in text  # all are named
    for words in ("3 of 3 done", "1 image failed: acquire: the file has zero bytes", found["export"]["uri"], "cat"):
        assert words in text


def test_failed_images_are_named(vouch, labelled, write_campaign):
    assert vouch("status", labelled, "--failed").out == "x.png\tacquire\tthe file has zero bytes\n"
    found = json.loads(vouch("status", labelled, "--failed", "--json").out)
    assert found == {"failed": [{"key": "x.png", "step": "acquire", "reason": "the file has zero bytes"}]}
    fresh = write_campaign("fresh.yaml", workspace="fresh")
    assert vouch("status", fresh, "--failed").out == ""
    assert f"next: label the images: vouch run {fresh}" in vouch("status", fresh).out


def test_status_shows_what_is_pending_after_a_change_and_who_runs(
    vouch, labelled, make_campaign, make_images, tmp_path
):
    make_images(tmp_path / "images", 2, start=50)
    campaign = make_campaign()
    from vouch_labels.tasks.run import CampaignRun

    with CampaignRun(campaign) as run:
        run.plan()
        found = json.loads(vouch("status", labelled, "--json").out)
    assert (found["images"], found["pending"], found["shards_done"], found["shards"]) == (12, 2, 3, 4)
    assert found["next"] == "the run goes on; look again when it has ended"
    assert "2 images that are pending: vouch run" in vouch("status", labelled).out
    assert found["running"].startswith("process ")
    with WorkspaceLock(open_store(campaign.workspace), "main"):
        assert "running: process" in vouch("status", labelled).out


def test_status_of_a_broken_campaign(vouch, write_campaign):
    answer = vouch("status", write_campaign(run={"retries": -1}))
    assert answer.code == 2
    assert "run.retries: must be at least 0, not -1" in answer.err


def test_export_again_under_another_name(vouch, labelled, tmp_path):
    words = (
        "--name",
        "mine",
        "--preset",
        "zero_based",
        "--undecided",
        "drop",
        "--images",
        "copy",
        "--splits",
        "0.5,0.5,0",
    )
    answer = vouch("export", labelled, *words, "--seed", "3", "--json")
    assert answer.code == 0, answer.err
    outcome = json.loads(answer.out)
    folder = tmp_path / "workspace" / "exports" / "mine"
    assert outcome["annotations_file"] == str(folder / "annotations.json")
    document = json.loads((folder / "annotations.json").read_text())
    assert [category["id"] for category in document["categories"]] == [0, 1]
    assert len(document["annotations"]) == outcome["annotations"] == outcome["accepted"]
    assert (folder / "images" / "000.png").is_file()
    splits = [json.loads((folder / f"annotations_{name}.json").read_text())["images"] for name in ("train", "val")]
    assert sum(map(len, splits)) == len(document["images"]) == 9
    assert not (folder / "annotations_test.json").exists()
    assert "data set: " in vouch("export", labelled, "--splits", "none").out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--preset", "yolo"],
            "--preset: must be 'coco', 'detectron2', 'yolox', 'rtdetr', 'torchvision' or 'zero_based', not 'yolo'; "
            "YOLO's text files are not written: ",
        ),
        (
            ["--preset", "yolo-x"],
            "--preset: must be 'coco', 'detectron2', 'yolox', 'rtdetr', 'torchvision' or 'zero_based', not 'yolo-x'; "
            "did you mean yolox?",
        ),
        (
            ["--undecided", "what", "--images", "no"],
            "--images: must be 'none', 'link' or 'copy', not 'no'; --undec",
        ),
        (["--name", "../x"], "--name: '../x' is not a name"),
        (["--splits", "0.8,0.2"], "--splits: '0.8,0.2' is not three shares"),
        (["--splits", "0.8,0.1,0.3"], "--splits: train + val + test must be 1, not 1.2"),
        (["--splits", "0.8,0.1,x"], "--splits.test: must be a number, not 'x'"),
        (["--seed", "4"], "--seed: there are no splits to seed"),
    ],
)
def test_export_refuses_wrong_options(vouch, write_campaign, words, problem):
    answer = vouch("export", write_campaign(), *words)
    assert answer.code == 2
    assert answer.err.startswith(f"vouch: {problem}")
    assert answer.err.count("\n") == 1


def test_export_before_a_run(vouch, write_campaign):
    answer = vouch("export", write_campaign())
    assert answer.code == 2
    assert "has no labels yet; use `vouch run` first" in answer.err


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_draws_a_few_images_beside_the_campaign(vouch, tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 9)
    answer = vouch("preview", write_campaign(), "--limit", 6)
    assert answer.code == 0, answer.err
    picture = tmp_path / "campaign-preview.jpg"
    assert f"picture: {picture}" in answer.out
    assert "6 images drawn at random with seed 0" in answer.out
    assert Image.open(picture).format == "JPEG"
    assert "labelling" in answer.err
    assert not (tmp_path / "workspace").exists()


def test_the_campaigns_run_stays_as_it_is(vouch, tmp_path, make_images, make_campaign, write_campaign, label):
    make_images(tmp_path / "images", 5)
    label(make_campaign())
    before = files(tmp_path / "workspace")
    answer = vouch("preview", write_campaign(classes=["horse"]), "--json", "--out", tmp_path / "p.png")
    found = json.loads(answer.out)
    assert (found["images"], found["seed"], found["picture"]) == (5, 0, str(tmp_path / "p.png"))
    assert found["labels"] == found["accepted"] + found["review"] > 0
    assert set(found["classes"]) == {"horse"}
    assert files(tmp_path / "workspace") == before


def test_a_seed_draws_others_and_the_same_again(vouch, tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 30)
    path, pictures = write_campaign(), []
    for seed in (1, 1, 2):
        assert vouch("preview", path, "--limit", 3, "--seed", seed, "--out", tmp_path / "p.png").code == 0
        pictures.append((tmp_path / "p.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_images_that_fail_are_named_and_nothing_found_is_said(vouch, tmp_path, write_campaign):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    answer = vouch("preview", write_campaign())
    assert "failed: bad.png: acquire: no supported image" in answer.out
    assert "Nothing was found" in answer.out


@pytest.mark.parametrize(
    ("sections", "options", "words"),
    [
        ({"source": "nowhere"}, [], "does not exist"),
        ({"source": {"uri": "images", "include": ["*.none"]}}, [], "holds no image to label"),
        ({"models": {"detector": {"backend": "x"}}}, [], "unknown backend 'x'"),
        ({}, ["--out", "no/such/folder.jpg"], "no such folder"),
        ({}, ["--out", "picture.txt"], "use .jpg or .png"),
        ({"routing": {"policy": "certified-9-none"}}, [], "certified-9-none"),
    ],
)
def test_mistakes_are_one_line(vouch, tmp_path, make_images, write_campaign, monkeypatch, sections, options, words):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", 2)
    answer = vouch("preview", write_campaign(**sections), *options)
    assert answer.code == 2
    assert words in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err


def test_it_opens_the_picture_when_asked_to(vouch, tmp_path, make_images, write_campaign, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    make_images(tmp_path / "images", 1)
    vouch("preview", write_campaign(), "--open")
    assert opened == [(tmp_path / "campaign-preview.jpg").as_uri()]


def test_a_preview_needs_no_prefect_and_a_runs_mistakes_show_before_it(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 2)
    mistakes: dict[str, dict[str, object]] = {
        "does not exist": {"source": "nowhere"},
        "holds no image to label": {"source": {"uri": str(tmp_path / "images"), "include": ["*.none"]}},
        "no file /no/such.pth": {"models": {"detector": {"checkpoint": "/no/such.pth"}}},
    }
    paths = [write_campaign(f"{place}.yaml", **sections) for place, sections in enumerate(mistakes.values())]
    commands = [["preview", str(write_campaign()), "--plain"], *(["run", str(path)] for path in paths)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PREFECT, json.dumps(commands)],
        env=os.environ | {"VOUCH_LOG": str(tmp_path / "log")}, capture_output=True, text=True, timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (code, _, err), *answers = json.loads(done.stdout)
    assert code == 0, err
    for words, (code, out, err) in zip(mistakes, answers, strict=True):
        assert (code, out) == (2, "")
        assert words in err.splitlines()[-1]
