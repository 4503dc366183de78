"""A folder as people have it: every format, wrong names, hidden files and files that are no images."""

import io
import json

import pillow_heif
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("prefect_server")

SKIPPED = {"hidden": 2, "TXT": 1, "links that lead nowhere": 1, "no image, without an extension": 2}


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
