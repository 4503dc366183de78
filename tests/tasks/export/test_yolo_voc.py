"""YOLO and Pascal VOC folders, as their readers see them; what becomes of images with undecided labels."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import supervision as sv
import yaml
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pydantic import ValidationError

from vouch_labels.schemas.campaign import ExportConfig
from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.records import answers_to_free
from vouch_labels.tasks.export.decide import is_left_out, split_of_image
from vouch_labels.tasks.export.fill import GREY
from vouch_labels.tasks.export.formats import image_path, layout_of
from vouch_labels.tasks.export.images import place_images
from vouch_labels.tasks.labels.records import Guarantee
from vouch_labels.tasks.store.local import LocalStore

CLASSES = ("bolt", 'a "hex" nut\\', "überwurf 螺母")
DECIDED = ['south/näch"ste.png', "empty.png"]
"""Images without a label that waits."""


def yolo_rows(path: Path) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in path.read_text(encoding="utf-8").splitlines()]


def plain(image):
    return [label for label in image.labels if label.decision == "accept"]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_yolo_leaves_out_images_with_undecided_labels_and_says_how_many(write, images):
    written = write(formats=["yolo"])
    assert written.folder.name == "yolo"
    assert files(written.folder) == {
        "data.yaml", "images/empty.png", 'images/south/näch"ste.png', "labels/empty.txt", 'labels/south/näch"ste.txt',
    }  # fmt: skip
    summary = written.summary
    assert (summary.images, summary.images_left_out, summary.waiting_of_left_out) == (2, 2, {1: 2})
    assert (summary.undecided_as, summary.images_incomplete, summary.usable) == ("drop_image", 0, 1)
    assert summary.classes[CLASSES[0]].left_out == 2
    total = sum(sum(counts.model_dump().values()) for counts in summary.classes.values())
    assert total == sum(len(image.labels) for image in images)


def test_yolo_lines_are_the_boxes(write, images):
    written = write(formats=["yolo"], undecided="drop")
    for image in images:
        rows = yolo_rows((written.folder / "labels" / image.key).with_suffix(".txt"))
        assert [int(row[0]) for row in rows] == [CLASSES.index(label.class_name) for label in plain(image)]
        for (_, x, y, width, height), label in zip(rows, plain(image), strict=True):
            corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            size = [image.width, image.height] * 2
            np.testing.assert_allclose(corners * size, label.xyxy, atol=0.006)
    about = yaml.safe_load((written.folder / "data.yaml").read_text())
    assert about == {"train": "images", "val": "images", "nc": 3, "names": list(CLASSES)}


def test_yolo_splits_are_folders_that_hold_every_image_once(write, images):
    many = [image._replace(sha256=f"{number}") for number, image in enumerate(images)]
    written = write(many, formats=["yolo"], undecided="drop", splits={"train": 0.5, "val": 0.5, "test": 0})
    about = yaml.safe_load((written.folder / "data.yaml").read_text())
    assert (about["train"], about["val"]) == ("images/train", "images/val")
    keys = [name.split("/", 2)[2] for name in files(written.folder) if name.startswith("images/")]
    assert sorted(keys) == sorted(image.key for image in images)
    for path in written.folder.glob("images/**/*.*"):
        assert Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt").is_file()
    counts = written.summary.splits
    assert counts["train"].images + counts["val"].images == counts["all"].images == 4
    # Without splits nothing of them stays, and the other way round.
    again = write(many, formats=["yolo"], undecided="drop")
    assert all(name.split("/")[1] not in ("train", "val") for name in files(again.folder) if "/" in name)


def test_frames_of_one_video_share_a_split_in_labels_and_images(write, images):
    (config,) = ExportConfig(formats=("yolo",), splits={"train": 0.5, "val": 0.5, "test": 0}).data_sets(linkable=True)
    frames = [images[2]._replace(key=f"a.mp4/00-00-{second:02d}.000.jpg", sha256=f"{second}") for second in range(30)]
    assert len({image_path(config, frame).split("/")[1] for frame in frames}) == 1
    assert len({split_of_image(config.splits, frame) for frame in frames}) == 1


def test_a_folder_called_images_does_not_mislead_readers(write, images):
    """They replace the last folder of this name by labels."""
    from vouch_labels.tasks.export.yolo import yolo_path

    assert yolo_path("images/a/images/b.jpg", "train") == "images/train/_images/a/_images/b.jpg"
    assert yolo_path("_images/images", None) == "images/__images/images"


def test_supervision_reads_yolo_boxes_and_polygons(write, images):
    flat = [image._replace(key=image.key.replace("/", "-")) for image in images]
    boxes = read_yolo(write, flat, masks="none")
    outlined = read_yolo(write, flat, masks="polygons")
    for image in flat:
        found = boxes[image.key]
        assert [CLASSES[number] for number in found.class_id] == [label.class_name for label in plain(image)]
        for place, label in enumerate(plain(image)):
            np.testing.assert_allclose(found.xyxy[place], label.xyxy, atol=0.02)
            mask = mask_utils.decode({"size": [image.height, image.width], "counts": label.rle_counts})
            seen = outlined[image.key].mask[place]
            # It fills polygons with their right and lower edge: 121 pixels for a square of 10.
            assert (seen >= mask).all()
            grown = np.pad(mask, 1)[:-2, 1:-1] | np.pad(mask, 1)[1:-1, :-2] | np.pad(mask, 1)[:-2, :-2] | mask
            assert (seen <= grown).all()


def read_yolo(write, images, **how):
    folder = write(images, formats=["yolo"], undecided="drop", images="copy", **how).folder
    found = sv.DetectionDataset.from_yolo(
        str(folder / "images"),
        str(folder / "labels"),
        str(folder / "data.yaml"),
        force_masks=how["masks"] == "polygons",
    )
    assert found.classes == list(CLASSES)
    return {Path(path).name: detections for path, _, detections in found}


@pytest.fixture
def source(tmp_path, images, source):
    """The images once more without folders, for readers that have none."""
    for image in images:
        target = source.root / image.key.replace("/", "-")
        if not target.exists():
            target.write_bytes((source.root / image.key).read_bytes())
    return source


def test_segment_labels_have_the_area_of_the_mask(write, images):
    folder = write(formats=["yolo"], masks="polygons", undecided="drop").folder
    for image in images:
        rows = yolo_rows((folder / "labels" / image.key).with_suffix(".txt"))
        for row, label in zip(rows, plain(image), strict=True):
            vertices = np.array(row[1:]).reshape(-1, 2) * [image.width, image.height]
            x, y = vertices.T
            assert abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2 == pytest.approx(label.area, abs=0.01)


def test_a_label_without_a_mask_is_its_box_among_segments(write, images):
    """Readers drop the polygons of an image in which one line is a box."""
    bare = images[1].labels[0]._replace(rle_counts=None, area=0)
    folder = write([images[1]._replace(labels=[bare])], formats=["yolo"], masks="polygons").folder
    assert yolo_rows(folder / 'labels/south/näch"ste.txt') == [[1, 0, 0, 1, 0, 1, 1, 0, 1]]


def test_voc_boxes_count_pixels_from_one(write, images):
    written = write(formats=["voc"], undecided="drop")
    for image in images:
        tree = ElementTree.parse((written.folder / "Annotations" / image.key).with_suffix(".xml"))
        assert tree.findtext("filename") == Path(image.key).name
        assert (written.folder / tree.findtext("folder") / tree.findtext("filename")).is_file()
        assert [tree.findtext(f"size/{side}") for side in ("width", "height", "depth")] == [
            str(image.width), str(image.height), "3",
        ]  # fmt: skip
        found = tree.findall("object")
        assert [one.findtext("name") for one in found] == [label.class_name for label in plain(image)]
        for one, label in zip(found, plain(image), strict=True):
            sides = [int(one.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
            np.testing.assert_allclose(np.array(sides) - [1, 1, 0, 0], label.xyxy, atol=0.5)
            assert 1 <= sides[0] <= sides[2] <= image.width
            assert 1 <= sides[1] <= sides[3] <= image.height
    lines = (written.folder / "ImageSets/Main/trainval.txt").read_text().splitlines()
    assert lines == [str(Path(image.key).with_suffix("")) for image in images]


def test_voc_can_call_what_waits_difficult(write, images):
    written = write(formats=["voc"], undecided="ignore")
    tree = ElementTree.parse(written.folder / "Annotations/north/a.xml")
    assert [one.findtext("difficult") for one in tree.findall("object")] == ["0", "0", "1"]
    assert written.summary.usable == 4


def test_supervision_reads_voc(write, images):
    flat = [image._replace(key=image.key.replace("/", "-")) for image in images]
    folder = write(flat, formats=["voc"], undecided="drop", images="copy").folder
    found = sv.DetectionDataset.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))
    by_name = {Path(path).name: detections for path, _, detections in found}
    for image in flat:
        detections = by_name[image.key]
        assert [found.classes[n] for n in detections.class_id] == [label.class_name for label in plain(image)]
        for place, label in enumerate(plain(image)):
            np.testing.assert_allclose(detections.xyxy[place], label.xyxy, atol=0.5)


def test_torchvision_reads_voc_with_its_folders(write, images, source, tmp_path):
    from torchvision.datasets import VOCDetection

    jpegs = [image for image in images if image.key.endswith(".jpg")]
    splits = {"train": 1, "val": 0, "test": 0}
    folder = write(jpegs, formats=["voc"], undecided="drop", splits=splits).folder
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2012").symlink_to(folder)
    ((picture, target),) = VOCDetection(str(tmp_path), image_set="train")
    assert picture.size == (80, 60)
    assert [one["name"] for one in target["annotation"]["object"]] == [label.class_name for label in plain(jpegs[0])]


def test_voc_splits_are_lists(write, images):
    many = [image._replace(sha256=f"{number}") for number, image in enumerate(images)]
    folder = write(many, formats=["voc"], undecided="drop", splits={"train": 0.4, "val": 0.3, "test": 0.3}).folder
    lists = {path.stem: path.read_text().splitlines() for path in (folder / "ImageSets/Main").iterdir()}
    assert set(lists) == {"train", "val", "test", "trainval"}
    assert sorted(lists["train"] + lists["val"]) == sorted(lists["trainval"])
    assert sorted(lists["trainval"] + lists["test"]) == sorted(str(Path(image.key).with_suffix("")) for image in images)


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_equal_input_gives_equal_bytes_and_nothing_of_an_earlier_export_stays(write, images, form):
    def contents(written):
        return {name: (written.folder / name).read_bytes() for name in files(written.folder)}

    once = contents(write(formats=[form], undecided="drop"))
    write(images[:1], formats=[form], undecided="drop", splits={})
    assert contents(write(formats=[form], undecided="drop")) == once


def test_what_a_link_in_the_folder_leads_to_is_not_deleted(write, tmp_path):
    folder = write(formats=["yolo"], undecided="drop").folder
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.jpg").write_bytes(b"x")
    (folder / "images" / "linked").symlink_to(mine)
    (folder / "images" / "stale.jpg").write_bytes(b"x")
    write(formats=["yolo"], undecided="drop")
    assert (mine / "precious.jpg").exists()
    assert not (folder / "images" / "stale.jpg").exists()


@pytest.mark.parametrize("form", ["yolo", "voc"])
def test_an_error_leaves_no_list_that_a_reader_starts_from(write, images, form, tmp_path, monkeypatch):
    folder = write(formats=[form], undecided="drop").folder
    starts = {"yolo": folder / "data.yaml", "voc": folder / "ImageSets/Main/trainval.txt"}[form]
    assert starts.exists()
    put = LocalStore.put

    def full(self, key, data, **how):
        if key.endswith((".txt", ".xml")) and "empty" in key:
            raise StoreError("no space left on device")
        return put(self, key, data, **how)

    monkeypatch.setattr(LocalStore, "put", full)
    with pytest.raises(StoreError, match="no space"):
        write(formats=[form], undecided="drop")
    assert not starts.exists()


def test_of_two_images_that_share_a_label_file_the_second_is_named(images, tmp_path):
    store = LocalStore(tmp_path / "source")
    keys = ["a.jpg", "a.png", "b/a.png"]
    for key in keys:
        store.put(key, b"x")
    (config,) = ExportConfig(formats=("yolo",)).data_sets(linkable=True)
    twins = [images[2]._replace(key=key, sha256=None) for key in keys]
    missed = place_images(twins, store, LocalStore(tmp_path / "out"), "e", "copy", layout=layout_of(config))
    assert missed == {"a.png": "the .txt file of its labels is another image's"}


@pytest.mark.parametrize("how", ["link", "copy"])
def test_regions_that_wait_are_filled_and_the_rest_stays(write, images, source, how):
    written = write(formats=["yolo"], undecided="blank", images=how)
    summary = written.summary
    assert (summary.images, summary.images_filled, summary.images_left_out) == (4, 2, 0)
    assert summary.images_incomplete == 0
    for image in images:
        was, now = (np.asarray(Image.open(root / image.key)) for root in (source.root, written.folder / "images"))
        waits = [label.xyxy for label in image.labels if label.decision == "review"]
        inside = np.zeros(was.shape[:2], np.bool_)
        for x0, y0, x1, y1 in waits:
            inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
        if image.key.endswith(".png"):
            assert (now[inside] == GREY).all()
            np.testing.assert_array_equal(now[~inside], was[~inside])
        else:  # written as JPEG once more; noise is the worst case for it
            assert np.abs(now[inside].astype(int) - GREY).mean() < 12
            assert np.abs(now[~inside].astype(int) - was[~inside]).mean() < 12
        # The source is as it was, though the others are links to it.
        assert (source.root / image.key).stat().st_nlink == (1 if waits or how == "copy" else 2)


def test_a_plain_label_that_would_be_hidden_keeps_its_image_out(images):
    shown, hidden = images[0].labels[0], images[0].labels[0]._replace(decision="review")
    assert is_left_out(images[0]._replace(labels=[shown, hidden]), "blank")
    small = hidden._replace(xyxy=(10, 5, 25, 45.25))
    assert not is_left_out(images[0]._replace(labels=[shown, small]), "blank")
    assert not is_left_out(images[0]._replace(labels=[hidden]), "blank")
    assert is_left_out(images[0]._replace(labels=[hidden]), "drop_image")


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        ({1: 25}, "20 answers free 20 of them"),
        ({1: 10, 2: 10, 5: 5}, "30 answers free 20 of them"),
        ({3: 1}, "3 answers free 1 of them"),
    ],
)
def test_fewest_answers_first(waiting, text):
    assert answers_to_free(waiting) == text


def test_a_guarantee_is_about_all_and_leaves_less_for_the_rest(images, tmp_path):
    from datetime import UTC, datetime

    from vouch_labels.tasks.export.dataset import write_dataset

    guarantee = Guarantee(policy="p", precision=0.9, confidence=0.9, gate="accepted", simulated=False)
    how: dict[str, Any] = {"run": "main", "created": datetime.now(UTC), "version": "1", "image_root": "r"}
    config = ExportConfig(undecided="drop_image")
    found = write_dataset(images, CLASSES, config, LocalStore(tmp_path), "e", guarantee=guarantee, **how).guarantee
    # One of four accepted labels is in it; were a tenth of the four wrong, it could be that one.
    assert (found.left_out, found.precision_of_rest) == (3, 0.6)
    whole = write_dataset(images, CLASSES, ExportConfig(), LocalStore(tmp_path), "e", guarantee=guarantee, **how)
    assert (whole.guarantee.left_out, whole.guarantee.precision_of_rest) == (0, None)


def test_coco_masks_as_polygons_are_the_same_pixels(write, images):
    coco = COCO(str(write(masks="polygons").folder / "annotations.json"))
    by_id = {label.label_id: (label, image) for image in images for label in image.labels}
    for entry in coco.anns.values():
        label, image = by_id[entry["label_id"]]
        assert isinstance(entry["segmentation"], dict) == bool(entry["iscrowd"])
        if not entry["iscrowd"]:
            mask = mask_utils.decode({"size": [image.height, image.width], "counts": label.rle_counts})
            np.testing.assert_array_equal(coco.annToMask(entry), mask)
    none = json.loads((write(masks="none").folder / "annotations.json").read_text())
    assert [entry["segmentation"] for entry in none["annotations"]] == [[]] * 6


def test_boxes_of_masks_hug_them(write, images):
    entries = json.loads((write(boxes="mask").folder / "annotations.json").read_text())["annotations"]
    by_id = {label.label_id: (label, image) for image in images for label in image.labels}
    for entry in entries:
        label, image = by_id[entry["label_id"]]
        x0, y0, x1, y1 = label.xyxy
        expected = [x0, y0, x1 - x0, y1 - y0]
        if label.area:
            rle = {"size": [image.height, image.width], "counts": label.rle_counts}
            expected = mask_utils.toBbox(rle)
        np.testing.assert_allclose(entry["bbox"], expected, atol=0.011)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"formats": ["yolo"], "undecided": "ignore"},
            "yolo cannot say that a region is to be ignored; use drop_image",
        ),
        ({"formats": ["coco", "yolo"], "masks": "rle"}, "yolo cannot hold rle; it takes none or polygons"),
        ({"formats": ["voc"], "masks": "polygons"}, "voc cannot hold polygons; it takes none"),
        ({"formats": ["yolo"], "images": "none"}, "readers of yolo look for the images beside the labels"),
    ],
)
def test_what_a_format_cannot_say_is_refused_in_a_line(fields, words):
    with pytest.raises(ValidationError, match=words):
        ExportConfig(**fields)


def test_every_format_has_its_own_data_set_and_defaults():
    def told(**fields):
        found = ExportConfig(**fields).data_sets(linkable=True)
        return [(one.name, one.formats, one.undecided, one.masks, one.images) for one in found]

    assert told() == [("coco", ("coco",), "ignore", "rle", "none")]
    assert told(formats=["parquet", "yolo", "coco"]) == [
        ("coco", ("parquet", "coco"), "ignore", "rle", "none"),
        ("yolo", ("yolo",), "drop_image", "none", "link"),
    ]
    assert [one[0] for one in told(name="birds", formats=["voc", "yolo"])] == ["birds", "birds-yolo"]
    (bucket,) = ExportConfig(formats=["voc"]).data_sets(linkable=False)
    assert bucket.images == "copy"
    assert bucket.data_sets(linkable=True) == [bucket]
