import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.waiting import HANG_S

WITHOUT_PREFECT = """
import json, sys
sys.modules["prefect"] = None
from typer.testing import CliRunner
from vouch_labels.flows.cli.app import app
results = [CliRunner().invoke(app, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(done.exit_code, done.stdout, done.stderr) for done in results]))
"""


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
