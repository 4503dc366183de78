"""`vouch init`: the campaign that it writes, what it says of the images, mistakes in what was asked for; classes."""

import json
import subprocess
import sys

import open_clip
import pytest

from tests.fake_campaign import draw_images
from tests.processes import HANG_S
from vouch_labels.flows.cli.init import OFFICIAL_MODELS
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks.models.checkpoints import OFFICIAL

TWINS = """\
source: images
workspace: workspace
classes: [dog, caf\u00e9, cafe]
"""


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
    for setting in ("\n  precision: 0.95\n", "\n  confidence: 0.9\n", "\n  gate: accepted\n", "vouch plan-reviews"):
        assert setting in text
    schema = json.loads((tmp_path / "cats" / "campaign.schema.json").read_text())
    assert "routing" in schema["properties"]
    assert "$schema=campaign.schema.json" in (tmp_path / "cats" / "campaign.yaml").read_text().splitlines()[0]


def test_a_folder_is_relative_to_where_it_is_typed(vouch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
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


@pytest.fixture
def photos(tmp_path):
    """Two images and four other files, some in a folder below."""
    folder = tmp_path / "my photos"
    (folder / "2026").mkdir(parents=True)
    for name in ("a.jpg", "2026/b.PNG", "c.mov", "2026/notes.txt", "2026/more.txt", ".hidden"):
        (folder / name).touch()
    return folder


def test_a_folder_of_photographs_in_one_command(vouch, tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = vouch(
        "init", "pets", "--source", "my photos", "--classes", " dog,traffic light ,", "--class", "salt, pepper"
    )
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[:3] == [
        "wrote pets/campaign.yaml",
        f"images: 2 in {photos}; 4 other files skipped: TXT 2, MOV 1, hidden 1",
        "classes: dog, traffic light, salt, pepper",
    ]
    assert lines[3].startswith("bundled models (detector, segmenter, scorer): they know 28 drawn things")
    assert lines[4].startswith("the bundled models do not know traffic light, salt, pepper; ")
    assert "vouch run pets/campaign.yaml" in lines[-1]
    campaign = load_campaign(tmp_path / "pets" / "campaign.yaml")
    assert [entry.name for entry in campaign.classes] == ["dog", "traffic light", "salt, pepper"]
    assert campaign.source.uri == str(photos)


def test_the_home_folder_may_be_quoted(vouch, tmp_path, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(photos)
    assert vouch("init", tmp_path / "pets", "--source", "~/my photos", "--classes", "dog").code == 0
    assert load_campaign(tmp_path / "pets" / "campaign.yaml").source.uri == str(photos)


def test_many_kinds_of_other_files_are_cut(vouch, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(9):
        (tmp_path / "photos" / f"a.x{number}").touch()
    answer = vouch("init", tmp_path / "pets", "--source", tmp_path / "photos", "--classes", "dog")
    assert "images: NONE in" in answer.out
    assert "next: put images into the folder, or name another as source.uri in " in answer.out
    assert "9 other files skipped: X0 1, X1 1, X2 1, X3 1, X4 1, X5 1 and 3 more" in answer.out


def test_without_classes_the_example_is_named_as_one(vouch, tmp_path):
    answer = vouch("init", tmp_path / "pets")
    assert answer.code == 0
    assert f"cat stands in {tmp_path / 'pets' / 'campaign.yaml'} as an example" in answer.out
    assert f"images: none yet; put them into {tmp_path / 'pets' / 'images'}" in answer.out
    assert answer.out.splitlines()[-1].startswith("next: put images into the folder")


def test_official_models_are_written_where_asked_for(vouch, tmp_path):
    answer = vouch("init", tmp_path / "pets", "--source", "s3://b/photos", "--classes", "dog", "--models", "official")
    assert answer.code == 0, answer.err
    assert "bundled" not in answer.out
    assert "images: those of s3://b/photos, listed by the first run" in answer.out
    models = load_campaign(tmp_path / "pets" / "campaign.yaml").models
    assert models.bundled == ()
    assert (models.detector.checkpoint, models.segmenter.checkpoint) == ("groundingdino_swint_ogc", "sam_vit_b")


def test_official_models_are_known_by_these_names():
    for kind in ("detector", "segmenter"):
        assert OFFICIAL[OFFICIAL_MODELS[kind]["checkpoint"]].kind == kind
    assert tuple(OFFICIAL_MODELS["scorer"]["checkpoint"].split("/")) in open_clip.list_pretrained()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--source", "nowhere"], "--source: nowhere: there is no such folder"),
        (["--source", "file.jpg"], "--source: file.jpg: is no folder"),
        (["--source", "s3:bucket"], "an S3 location is written s3://bucket/prefix"),
        (["--source", "gs://bucket"], "gs:// is not supported"),
        (["--classes", " , "], "--classes: ' , ' names no class"),
        (["--classes", ""], "--classes: '' names no class"),
        (["--classes", "dog, dog"], "--class: "),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(vouch, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.jpg").touch()
    answer = vouch("init", "pets", *words)
    assert answer.code == 2
    assert answer.err.startswith(f"vouch: {told}")
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "pets").exists()


def test_the_folder_is_named_and_not_the_file(vouch, tmp_path):
    answer = vouch("init", tmp_path / "cats" / "campaign.yaml", "--classes", "cat")
    assert answer.code == 2
    assert f"name the campaign's folder, such as {tmp_path / 'cats'}" in answer.err
    assert not (tmp_path / "cats").exists()


def test_no_campaign_is_written_among_the_images(vouch, photos):
    answer = vouch("init", photos, "--classes", "dog")
    assert answer.code == 2
    assert f"vouch init NAME --source {photos}" in answer.err
    assert not (photos / "campaign.yaml").exists()


def test_help_has_examples(vouch):
    assert "vouch init pets --source ~/Pictures" in vouch("init", "--help").out


# What becomes of a campaign whose classes are one to the detector, or change.


@pytest.fixture
def twins(tmp_path):
    draw_images(tmp_path, 1)
    path = tmp_path / "campaign.yaml"
    path.write_text(TWINS, encoding="utf-8")
    return path


def test_run_refuses_classes_that_are_one_to_the_detector_before_anything_starts(twins, tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "vouch.log"))
    code = (
        "import sys\n"
        "from vouch_labels.flows.cli.app import main\n"
        f"sys.argv = ['vouch', 'run', {str(twins)!r}]\n"
        "try:\n    main()\n"
        "finally:\n    print('loaded', {'prefect', 'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 2
    assert "classes 'caf\u00e9' and 'cafe' are one to the detector" in done.stderr
    assert "loaded set()" in done.stdout
    assert not (tmp_path / "workspace").exists()


def test_a_run_with_nothing_to_do_starts_neither_models_nor_prefect(
    tmp_path, make_images, make_campaign, write_campaign, label, monkeypatch
):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "vouch.log"))
    make_images(tmp_path / "images", 3)
    label(make_campaign())
    classes = [{"name": "tiger", "was": "cat"}, {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}]
    code = (
        "import sys\n"
        "from vouch_labels.flows.cli.app import main\n"
        f"sys.argv = ['vouch', 'run', {str(write_campaign(classes=classes))!r}, '--json']\n"
        "try:\n    main()\n"
        "finally:\n    loaded = {'prefect', 'torch', 'transformers'} & set(sys.modules)\n"
        "    print('loaded', loaded, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "loaded set()" in done.stderr
    assert "loading" not in done.stderr
    found = json.loads(done.stdout)
    assert (found["done"], found["shards_processed"], set(found["classes"])) == (3, 0, {"tiger", "dog"})
    names = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())["categories"]
    assert [category["name"] for category in names] == ["tiger", "dog"]


def test_models_check_refuses_them_too(vouch, twins):
    answer = vouch("models", "check", twins)
    assert answer.code == 2
    assert "classes 'caf\u00e9' and 'cafe' are one to the detector" in " ".join(answer.out.split())
