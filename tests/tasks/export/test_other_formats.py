"""LVIS, Hugging Face and WebDataset, read without their packages; what a bucket, a clash or an error makes of them."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from pydantic import ValidationError

from vouch_labels.schemas.campaign import ExportConfig, Format
from vouch_labels.tasks.export import huggingface, webdataset
from vouch_labels.tasks.export.formats import FORMATS
from vouch_labels.tasks.export.lvis import frequency

CLASSES = ("bolt", 'a "hex" nut\\', "überwurf 螺母")
ACCEPTED = [["1", "2"], ["4"], [], ["6"]]
"""Ends of the ids of the labels that are plain, by image."""


def xywh(label):
    x0, y0, x1, y1 = label.xyxy
    return [x0, y0, x1 - x0, y1 - y0]


def size(image):
    return [image.height, image.width]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_format_is_there_and_named_by_the_command():
    from typing import get_args

    from vouch_labels.flows.cli import label

    assert set(get_args(Format)) == set(FORMATS) == set(re.findall(r"[a-z]+", label.FORMATS)) - {"or"}


def test_lvis_says_of_every_image_what_it_lacks_and_where_there_may_be_more(write, images):
    checked = frozenset(CLASSES)
    given = [image._replace(checked=checked) for image in images[:3]] + [images[3]]
    document = json.loads((write(given, formats=["lvis"]).folder / "lvis.json").read_text(encoding="utf-8"))
    about = [(one["neg_category_ids"], one["not_exhaustive_category_ids"]) for one in document["images"]]
    # The third class of the first image waits, and has no other label there: it is not judged at all.
    assert about == [([], []), ([1, 3], []), ([1, 2, 3], []), ([], [1])]
    assert [one["label_id"][-1] for one in document["annotations"]] == ["1", "2", "4", "6"]
    keys = {"id", "name", "synset", "synonyms", "def", "image_count", "instance_count", "frequency"}
    assert all(one.keys() == keys for one in document["categories"])
    counts = [
        (one["id"], one["image_count"], one["instance_count"], one["frequency"]) for one in document["categories"]
    ]
    assert counts == [(1, 2, 2, "r"), (2, 2, 2, "r"), (3, 0, 0, "r")]
    assert [frequency(count) for count in (0, 10, 11, 100, 101)] == ["r", "r", "c", "c", "f"]
    by_id = {label.label_id: (label, image) for image in images for label in image.labels}
    for one in document["annotations"]:
        label, image = by_id[one["label_id"]]
        np.testing.assert_allclose(one["bbox"], xywh(label), atol=0.011)
        mask = mask_utils.decode(
            mask_utils.merge(mask_utils.frPyObjects(one["segmentation"], image.height, image.width))
        )
        np.testing.assert_array_equal(mask, mask_utils.decode({"size": size(image), "counts": label.rle_counts}))


def test_lvis_splits_count_their_own(write, images):
    folder = write(formats=["lvis"], splits={"train": 0.5, "val": 0.5, "test": 0}).folder
    parts = [json.loads((folder / f"lvis_{name}.json").read_text(encoding="utf-8")) for name in ("train", "val")]
    whole = json.loads((folder / "lvis.json").read_text(encoding="utf-8"))
    for place, category in enumerate(whole["categories"]):
        for key in ("image_count", "instance_count"):
            assert sum(part["categories"][place][key] for part in parts) == category[key]
    write(formats=["lvis"])
    assert set(files(folder)) == {"lvis.json"}


def test_a_label_without_a_mask_is_its_box_in_lvis(write, images):
    bare = images[1].labels[0]._replace(rle_counts=None, area=0)
    folder = write([images[1]._replace(labels=[bare])], formats=["lvis"]).folder
    (one,) = json.loads((folder / "lvis.json").read_text(encoding="utf-8"))["annotations"]
    assert (one["segmentation"], one["area"]) == ([[0, 0, 50, 0, 50, 90, 0, 90]], 4500)


def test_huggingface_holds_images_and_objects(write, images, source):
    written = write(formats=["huggingface"], undecided="drop")
    table = pq.read_table(written.folder / "data/train-00000.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["objects"]["category"]["feature"]["names"] == list(CLASSES)
    assert list(features) == table.schema.names
    assert list(features["objects"]) == [field.name for field in table.schema.field("objects").type]
    for row, image in zip(table.to_pylist(), images, strict=True):
        assert row["file_name"] == image.key
        assert row["image"]["bytes"] == (source.root / image.key).read_bytes()
        labels = [label for label in image.labels if label.decision == "accept"]
        found = row["objects"]
        assert [CLASSES[number] for number in found["category"]] == [label.class_name for label in labels]
        assert found["label_id"] == [label.label_id for label in labels]
        for box, counts, label in zip(found["bbox"], found["rle_counts"], labels, strict=True):
            np.testing.assert_allclose(box, xywh(label), atol=0.011)
            assert counts.encode() == label.rle_counts
    assert "path: data/train-*.parquet" in (written.folder / "README.md").read_text()


@pytest.mark.parametrize("form", ["huggingface", "webdataset"])
def test_many_images_are_several_files_of_some_size(write, images, form, monkeypatch):
    monkeypatch.setattr(huggingface, "GROUP_BYTES", 1)
    for module in (huggingface, webdataset):
        monkeypatch.setattr(module, "FILE_BYTES", 10_000)
    written = write(formats=[form], undecided="drop")
    counts = written.summary.splits["all"].files
    assert len(counts) > 1
    assert sum(one.images for one in counts) == 4
    assert sum(one.annotations for one in counts) == written.summary.annotations == 4
    assert {one.file for one in counts} == {
        f"exports/{form}/{name}" for name in files(written.folder) if not name.endswith((".md", "classes.json"))
    }


def test_imagefolder_has_metadata_beside_the_images(write, images):
    splits = {"train": 0.5, "val": 0.5, "test": 0}
    folder = write(formats=["imagefolder"], undecided="drop", splits=splits).folder
    rows = {}
    for split in ("train", "validation"):
        for line in (folder / split / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert (folder / split / row["file_name"]).is_file()
            rows[row["file_name"]] = row
    assert [rows[image.key]["objects"]["label_id"] for image in images] == [
        [label.label_id for label in image.labels if label.decision == "accept"] for image in images
    ]
    assert (folder / "classes.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)
    jpegs = {str(path.relative_to(folder)).split("/", 1)[1] for path in folder.glob("*/**/*.[jp][pn]g")}
    assert jpegs == {image.key for image in images}


def members(path: Path) -> dict[str, dict[str, bytes]]:
    """As `webdataset` groups them: the key ends at the first dot of the base name."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for one in tar:
            key, extension = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", one.name).groups()
            found.setdefault(key, {})[extension] = tar.extractfile(one).read()
            assert (one.mtime, one.uid, one.gid, one.uname, one.mode) == (0, 0, 0, "", 0o644)
    return found


def test_webdataset_pairs_images_and_labels(write, images, source):
    folder = write(formats=["webdataset"], undecided="drop").folder
    samples = members(folder / "all-00000.tar")
    assert list(samples) == ["north/a", 'south/näch"ste', "empty", "south/doubtful"]
    for sample, image, accepted in zip(samples.values(), images, ACCEPTED, strict=True):
        (extension,) = sample.keys() - {"json"}
        assert extension == image.key.rpartition(".")[2]
        assert sample[extension] == (source.root / image.key).read_bytes()
        about = json.loads(sample["json"])
        assert about["file_name"] == image.key
        assert [one["label_id"][-1] for one in about["annotations"]] == accepted
    assert json.loads((folder / "classes.json").read_text(encoding="utf-8")) == list(CLASSES)


def test_dots_in_names_do_not_end_a_key_and_no_two_images_share_one(write, images, source):
    keys = ["a.b.jpg", "a.jpg", "a.png", "a%2Eb.jpg", "x.y/c.jpg", "noend"]
    for key in keys:
        path = source.root / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((source.root / "north/a.jpg").read_bytes())
    given = [images[0]._replace(key=key) for key in keys]
    samples = members(write(given, formats=["webdataset"], undecided="drop").folder / "all-00000.tar")
    assert list(samples) == ["a%2Eb", "a", "a%2Epng", "a%252Eb", "x.y/c", "noend"]
    assert [sample.keys() for sample in samples.values()] == [{"jpg", "json"}] * 6


@pytest.mark.parametrize("form", ["lvis", "huggingface", "imagefolder", "webdataset", "fiftyone"])
def test_equal_input_gives_equal_bytes_and_nothing_of_an_earlier_export_stays(write, images, form):
    once = files(write(formats=[form], undecided="drop").folder)
    write(images[:1], formats=[form], undecided="drop", splits={})
    assert files(write(formats=[form], undecided="drop").folder) == once


@pytest.mark.parametrize("form", ["huggingface", "webdataset"])
def test_images_that_cannot_be_had_are_left_out_and_named(write, images, source, form):
    (source.root / "empty.png").unlink()
    written = write(formats=[form], undecided="drop", missing={"empty.png": "gone from the source"})
    assert written.summary.images == 3


@pytest.mark.parametrize("form", ["huggingface", "webdataset"])
def test_regions_are_filled_in_images_that_files_hold(write, images, form):
    folder = write(formats=[form], undecided="blank").folder
    if form == "huggingface":
        data = pq.read_table(folder / "data/train-00000.parquet")["image"][3].as_py()["bytes"]
    else:
        data = members(folder / "all-00000.tar")["south/doubtful"]["png"]
    assert (np.asarray(Image.open(io.BytesIO(data)))[8, 7] == 114).all()


@pytest.mark.parametrize("form", ["huggingface", "imagefolder", "webdataset"])
def test_what_waits_keeps_an_image_out_unless_it_is_to_be_marked(write, images, form):
    assert write(formats=[form]).summary.images == 2
    marked = write(formats=[form], undecided="ignore").summary
    assert (marked.images, marked.annotations, marked.usable) == (4, 6, 4)


@pytest.mark.parametrize("form", ["huggingface", "webdataset"])
def test_no_images_beside_files_that_hold_them(form):
    with pytest.raises(ValidationError, match=f"the files of {form} hold the images themselves; leave it empty"):
        ExportConfig(formats=(form,), images="copy")
