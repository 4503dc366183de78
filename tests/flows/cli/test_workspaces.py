"""Workspaces of other releases, and those whose files do not belong together."""

import io
import json
from collections import Counter

import pillow_heif
import pytest
from PIL import Image

from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import FORMAT, FORMAT_FILE

pytestmark = pytest.mark.usefixtures("prefect_server")

COMMANDS = [
    "run",
    "status",
    "status --failed",
    "export",
    "plan-reviews",
    "review --open",
    "verdicts",
    "verdicts answers.csv --reviewer ann",
    "verdicts --tasks tasks.csv",
    "verdicts --export all.csv",
    "certify",
    "apply",
    "evaluate --truth truth.json",
    "simulate --truth truth.json",
    "report",
]
SKIPPED = {"hidden": 2, "TXT": 1, "links that lead nowhere": 1, "no image, without an extension": 2}


@pytest.fixture
def looks(monkeypatch):
    """How often each object of a local store was read."""
    read = Counter()
    get = LocalStore.get

    def counted(self, key):
        read[key] += 1
        return get(self, key)

    monkeypatch.setattr(LocalStore, "get", counted)
    return read


@pytest.mark.parametrize("words", COMMANDS)
def test_a_newer_workspace_is_refused_in_one_line_and_left_as_it_is(
    vouch, write_campaign, make_images, tmp_path, monkeypatch, words
):
    make_images(tmp_path / "images", 1)
    campaign = write_campaign()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "workspace" / FORMAT_FILE
    file.parent.mkdir()
    file.write_text('{"format": 99, "of": "tomorrow"}')
    command, *options = words.split()
    answer = vouch(command, campaign, *options)
    assert (answer.code, answer.out.strip()) == (2, "")
    assert answer.err.splitlines()[-1] == (  # before it stands the progress
        f"vouch: {file}: the workspace has format 99, and this Vouch reads format {FORMAT}; "
        "install the Vouch that wrote it, or a newer one, or name another workspace"
    )
    assert [path.name for path in file.parent.iterdir()] == [FORMAT_FILE]
    assert file.read_text() == '{"format": 99, "of": "tomorrow"}'


def test_a_damaged_file_says_how_to_repair_it(vouch, write_campaign, tmp_path):
    file = tmp_path / "workspace" / FORMAT_FILE
    file.parent.mkdir()
    for content in ("", "[]", "{}", '{"format": "1"}', '{"format": 0}'):
        file.write_text(content)
        answer = vouch("status", write_campaign())
        assert answer.code == 1
        assert f'{file} is damaged; restore it, or put {{"format": 1}} there' in answer.err


def test_the_first_run_writes_it_and_each_command_looks_once(vouch, write_campaign, make_images, tmp_path, looks):
    make_images(tmp_path / "images", 9)
    campaign, file = write_campaign(), tmp_path / "workspace" / FORMAT_FILE
    assert vouch("status", campaign).code == 0
    assert not file.exists()
    looks.clear()
    for words in ("run", "run", "status", "status --failed", "export", "plan-reviews", "verdicts", "apply", "report"):
        command, *options = words.split()
        if words == "report":
            options += ["--out", str(tmp_path / "report.html")]
        answer = vouch(command, campaign, *options)
        # There is no certified policy to apply.
        assert answer.code == (2 if words == "apply" else 0), answer.err
        assert looks[FORMAT_FILE] == 1, words
        assert json.loads(file.read_text()) == {"format": FORMAT}
        looks.clear()


def test_a_workspace_without_one_is_of_the_first_version(vouch, write_campaign, make_images, tmp_path):
    make_images(tmp_path / "images", 3)
    campaign, file = write_campaign(), tmp_path / "workspace" / FORMAT_FILE
    assert vouch("run", campaign).code == 0
    file.unlink()
    assert json.loads(vouch("status", campaign, "--json").out)["done"] == 3
    assert not file.exists()
    summary = json.loads(vouch("run", campaign, "--json").out)
    assert summary["shards_processed"] == 0
    assert json.loads(file.read_text()) == {"format": 1}


# A folder as people have it: every format, wrong names, hidden files and files that are no images.


@pytest.fixture
def folder(tmp_path, make_images):
    pillow_heif.register_heif_opener()  # for writing
    images = tmp_path / "images"
    make_images(images, 3)
    with Image.open(images / "000.png") as first:
        picture = first.convert("RGB")
    for name, kind in (("a.heic", "HEIF"), ("b.avif", "AVIF"), ("c.gif", "GIF"), ("IMG_1", "JPEG"), ("d.jpg", "PNG")):
        file = io.BytesIO()
        picture.save(file, kind)
        (images / name).write_bytes(file.getvalue())
    (images / ".thumbnails").mkdir()
    for name in (".thumbnails/a.jpg", ".DS_Store", "notes.txt", "README", "LICENSE"):
        (images / name).write_bytes(b"not an image")
    (images / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    return images


def test_files_are_taken_by_content_and_the_others_are_counted(vouch, write_campaign, folder, tmp_path):
    campaign = write_campaign()
    summary = json.loads(vouch("run", campaign, "--json").out)
    assert (summary["images"], summary["done"], summary["failed"], summary["pending"]) == (8, 8, 0, 0)
    assert summary["skipped"] == SKIPPED
    assert summary["misnamed"] == 1
    again = vouch("run", campaign)
    assert "6 files skipped: hidden 2, no image, without an extension 2, TXT 1, links that lead nowhere 1" in again.out
    assert "1 image taken by content: the name ends as another format's does" in again.out
    status = json.loads(vouch("status", campaign, "--json").out)
    assert (status["images"], status["done"], status["skipped"], status["misnamed"]) == (8, 8, SKIPPED, 1)
    assert vouch("status", campaign, "--failed").out.count("README") == 0
    assert vouch("report", campaign, "--out", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text()
    assert "6 files skipped: hidden 2" in page
    (record,) = (tmp_path / "workspace").glob("reports/**/*.json")
    assert json.loads(record.read_text())["images"]["skipped"] == SKIPPED


def test_a_file_that_becomes_an_image_is_labelled(vouch, write_campaign, folder):
    campaign = write_campaign()
    assert vouch("run", campaign).code == 0
    (folder / "README").write_bytes((folder / "IMG_1").read_bytes())
    summary = json.loads(vouch("run", campaign, "--json").out)
    assert (summary["images"], summary["done"], summary["new_images"]) == (9, 9, 1)
    assert summary["skipped"] == SKIPPED | {"no image, without an extension": 1}


def test_a_folder_of_nothing_else_is_no_error_of_its_shards(vouch, write_campaign, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(9):
        (tmp_path / "images" / f"file{number}").write_bytes(b"not an image")
    summary = json.loads(vouch("run", write_campaign(), "--json").out)
    assert (summary["images"], summary["failed"], summary["skipped"]) == (0, 0, {"no image, without an extension": 9})
