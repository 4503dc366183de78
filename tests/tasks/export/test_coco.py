"""What the COCO file says, and what the summary says about it.

What a full disk does to a file that is being written.

Splits: shares, and that an image keeps its split.
"""

import contextlib
import io
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from vouch_labels.schemas.campaign import ExportConfig, Splits
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.export import files
from vouch_labels.tasks.export.coco import FIRST_IDS
from vouch_labels.tasks.export.dataset import write_dataset
from vouch_labels.tasks.export.decide import export_status, not_exhaustive, split_of
from vouch_labels.tasks.export.export import owner_of, read_summary
from vouch_labels.tasks.export.files import images_key, open_document
from vouch_labels.tasks.labels.records import ClassCounts, ExportImage, ExportLabel, Guarantee
from vouch_labels.tasks.store.local import LocalStore

CLASSES = ("bolt", 'a "hex" nut\\', "überwurf 螺母")
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def read(written, name="annotations.json"):
    return json.loads((written.folder / name).read_text(encoding="utf-8"))


def test_the_file_says_what_came_in(write, images):
    document = read(write(description="d", contributor="c", licences=[{"name": "CC0", "url": "u"}]))
    assert list(document) == ["info", "licenses", "images", "annotations", "categories"]
    assert document["info"] == {
        "description": "d",
        "version": "7",
        "year": 2026,
        "contributor": "c",
        "date_created": "2026-03-04T05:06:07+00:00",
    }
    assert document["licenses"] == [{"id": 1, "name": "CC0", "url": "u"}]
    assert [entry["name"] for entry in document["categories"]] == list(CLASSES)
    assert [entry["id"] for entry in document["categories"]] == [1, 2, 3]
    assert document["images"][1] == {
        "id": 2,
        "file_name": 'south/näch"ste.png',
        "width": 50,
        "height": 90,
        "license": 1,
        "not_exhaustive_category_ids": [1, 2, 3],
    }
    first = document["annotations"][0]
    given = images[0].labels[0]
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [10.13, 5.0, 30.37, 40.25],
        "area": given.area,
        "iscrowd": 0,
        "segmentation": {"size": [60, 80], "counts": given.rle_counts.decode()},
        "score": 0.875,
        "p_correct": 0.9,
        "decision": "accept",
        "policy": "p1",
        "provenance": "auto",
        "label_id": "0000000000000001",
    }


@pytest.mark.parametrize("preset", FIRST_IDS)
def test_category_ids_are_those_of_the_preset(write, preset):
    document = read(write(preset=preset))
    first = {"rtdetr": 0, "zero_based": 0}.get(preset, 1)
    assert [entry["id"] for entry in document["categories"]] == [first, first + 1, first + 2]
    assert [entry["category_id"] - first for entry in document["annotations"]] == [0, 1, 2, 1, 0, 0]
    assert min(entry["id"] for entry in document["images"] + document["annotations"]) == 1


def test_undecided_labels_become_crowd_regions(write):
    written = write(undecided="ignore")
    crowd = {entry["label_id"][-1]: (entry["iscrowd"], entry["decision"]) for entry in read(written)["annotations"]}
    assert crowd["3"] == crowd["5"] == (1, "review")
    assert crowd["1"] == crowd["6"] == (0, "accept")
    assert written.summary.classes[CLASSES[2]].undecided == 1


def test_undecided_labels_can_be_dropped_and_are_counted(write):
    written = write(undecided="drop")
    ids = [entry["label_id"][-1] for entry in read(written)["annotations"]]
    assert ids == ["1", "2", "4", "6"]
    assert written.summary.classes[CLASSES[2]].dropped == 1
    assert written.summary.classes[CLASSES[0]] == ClassCounts(accepted=2, dropped=1)
    assert written.summary.images_incomplete == 2
    assert written.summary.images_without_annotations == 1


def test_undecided_labels_can_be_plain(write):
    annotations = read(write(undecided="include"))["annotations"]
    assert {entry["iscrowd"] for entry in annotations} == {0}
    assert [entry["decision"] for entry in annotations].count("review") == 2


def test_what_people_said_goes_before_the_decision(write, images):
    one, two, three = images[0].labels
    labels = [
        one._replace(reviewed="rejected", verdict="not_an_object"),
        two._replace(reviewed="unclear", verdict="bad_box"),
        three._replace(reviewed="kept", verdict="correct", provenance="simulated"),
    ]
    everything = frozenset(CLASSES)
    written = write([images[0]._replace(labels=labels, checked=everything), images[2]._replace(checked=everything)])
    document = read(written)
    assert [
        (entry["label_id"][-1], entry["iscrowd"], entry["provenance"], entry["verdict"])
        for entry in document["annotations"]
    ] == [("2", 1, "auto", "bad_box"), ("3", 0, "simulated", "correct")]
    assert [entry["not_exhaustive_category_ids"] for entry in document["images"]] == [[2], []]
    summary = written.summary
    assert [summary.classes[name] for name in CLASSES] == [
        ClassCounts(rejected=1),
        ClassCounts(undecided=1),
        ClassCounts(kept=1),
    ]
    assert (summary.images_checked, summary.simulated, summary.images_incomplete) == (1, 1, 0)


def test_a_label_without_a_mask_keeps_its_box(write, images):
    bare = images[0].labels[0]._replace(rle_counts=None, area=0, p_correct=None, score=float("nan"))
    entry = read(write([images[0]._replace(labels=[bare])]))["annotations"][0]
    assert entry["segmentation"] == []
    assert entry["area"] == pytest.approx(30.37 * 40.25, abs=0.01)
    assert entry["score"] is None
    assert "p_correct" not in entry


@pytest.mark.parametrize(
    "box",
    [(5, 5, 5.001, 9), (5, 9, 9, 5), (float("nan"), 1, 2, 3), (0, 0, float("inf"), 5), (-3, 0, 5, 5), (0, 0, 81, 5)],
)
def test_a_box_without_extent_inside_the_image_is_left_out_and_counted(write, images, box):
    odd = images[0].labels[0]._replace(xyxy=box)
    written = write([images[0]._replace(labels=[odd, images[0].labels[1]])])
    annotations = read(written)["annotations"]
    assert [entry["id"] for entry in annotations] == [1]
    assert annotations[0]["label_id"] == images[0].labels[1].label_id
    assert written.summary.classes[CLASSES[0]].unusable == 1


def test_an_undecided_region_without_a_pixel_is_its_box_filled(write, images):
    box = (2.5, 10.2, 7.5, 60.0)
    bare = images[0].labels[0]._replace(rle_counts=None, area=0, decision="review", xyxy=box)
    entry = read(write([images[0]._replace(labels=[bare])]))["annotations"][0]
    expected = np.zeros((60, 80), dtype=np.uint8)
    expected[10:60, 2:8] = 1
    np.testing.assert_array_equal(mask_utils.decode(entry["segmentation"]), expected)


def test_orientation_is_noted(write, images):
    written = write([images[0]._replace(orientation=6), images[1]])
    entries = read(written)["images"]
    assert entries[0]["exif_orientation"] == 6
    assert "exif_orientation" not in entries[1]
    assert written.summary.images_rotated == 1


def test_equal_input_gives_equal_bytes(write):
    def contents(written):
        return {path.name: path.read_bytes() for path in written.folder.iterdir()}

    splits = {"train": 0.4, "val": 0.3, "test": 0.3}
    assert contents(write(splits=splits)) == contents(write(splits=splits))


def test_no_images_are_a_data_set_too(write):
    written = write([])
    document = read(written)
    assert document["images"] == document["annotations"] == []
    assert written.summary.images == 0


def test_splits_hold_every_image_once_under_its_own_ids(write, images):
    many = [image._replace(key=f"{i}/{image.key}", sha256=f"{i}{image.sha256}") for i in range(10) for image in images]
    written = write(many, splits={"train": 0.5, "val": 0.25, "test": 0.25})
    whole = read(written)
    parts = [read(written, f"annotations_{name}.json") for name in ("train", "val", "test")]
    for kind in ("images", "annotations"):
        assert sorted((e for part in parts for e in part[kind]), key=lambda e: e["id"]) == whole[kind]
    for part, name in zip(parts, ("train", "val", "test"), strict=True):
        assert {entry["image_id"] for entry in part["annotations"]} <= {entry["id"] for entry in part["images"]}
        counts = written.summary.splits[name]
        assert counts.images == len(part["images"]) > 0
        assert counts.annotations == len(part["annotations"]) == sum(counts.classes.values())


def test_images_of_one_content_share_a_split(write, images):
    config = ExportConfig(splits={"train": 0.5, "val": 0.5, "test": 0.0})
    twins = [images[0]._replace(key=f"copy-{i}.jpg", sha256="same") for i in range(30)]
    written = write(twins, splits=config.splits)
    assert sorted(counts.images for name, counts in written.summary.splits.items() if name != "all") == [0, 30]
    assert not (written.folder / "annotations_test.json").exists()
    without = {split_of(config.splits, image.key) for image in twins}
    assert without == {"train", "val"}


def test_splits_of_an_earlier_export_do_not_stay(write):
    assert (write(splits={}).folder / "annotations_val.json").exists()
    assert not (write().folder / "annotations_val.json").exists()


def test_the_folder_holds_annotations_alone(write, images):
    """Converters (ultralytics' convert_coco) take every *.json of the folder for annotations."""
    written = write(splits={})
    for path in written.folder.glob("*.json"):
        assert {"images", "annotations", "categories"} <= json.loads(path.read_text()).keys()
    assert {path.name for path in written.folder.iterdir()} == {
        "annotations.json", "annotations_train.json", "annotations_val.json", "annotations_test.json",
    }  # fmt: skip


def test_the_summary_is_kept_outside_the_data_set(write, images):
    written = write(splits={})
    workspace = LocalStore(written.folder.parents[1])
    assert read_summary(workspace, "coco") == written.summary
    assert owner_of(workspace, "coco") == "main"
    assert read_summary(workspace, "other") is owner_of(workspace, "other") is None
    assert written.summary.splits["all"].file == "exports/coco/annotations.json"
    total = sum(sum(counts.model_dump().values()) for counts in written.summary.classes.values())
    assert total == sum(len(image.labels) for image in images)


def test_a_summary_of_an_earlier_version_is_read_and_replaced(write):
    written = write(undecided="include")
    workspace = LocalStore(written.folder.parents[1])
    old = json.loads(workspace.get("datasets/coco.json").data)
    del old["unreviewed"]
    workspace.put("exports/coco/dataset.json", json.dumps(old).encode())
    workspace.delete("datasets/coco.json")
    found = read_summary(workspace, "coco")
    assert found.classes == written.summary.classes
    assert found.usable == written.summary.usable == written.summary.annotations
    assert owner_of(workspace, "coco") == "main"
    write()
    assert not (written.folder / "dataset.json").exists()
    assert read_summary(workspace, "coco").undecided_as == "ignore"


def test_a_summary_of_a_later_version_still_names_its_owner(write):
    workspace = LocalStore(write().folder.parents[1])
    workspace.put("datasets/coco.json", b'{"run": "theirs", "of a later version": 1}')
    assert read_summary(workspace, "coco") is None
    assert owner_of(workspace, "coco") == "theirs"
    workspace.put("datasets/coco.json", b"[]")
    assert owner_of(workspace, "coco") is None


@pytest.mark.parametrize("undecided", ["ignore", "drop", "include"])
def test_what_a_trainer_learns_from_is_counted(write, undecided):
    written = write(undecided=undecided)
    entries = json.loads((written.folder / "annotations.json").read_text())["annotations"]
    assert written.summary.usable == sum(not entry["iscrowd"] for entry in entries)
    assert written.summary.unreviewed == {"ignore": 0, "drop": 0, "include": 2}[undecided]


@pytest.mark.parametrize("names", [("object", "cat"), ("none", "null", "Object"), ("cat", "objects")])
def test_no_class_is_another_ones_supercategory(tmp_path, names):
    """RF-DETR leaves out a category that is named as another's supercategory and has no annotation."""
    how: dict[str, Any] = {"run": "main", "created": CREATED, "version": "1", "image_root": "r"}
    write_dataset([], names, ExportConfig(), LocalStore(tmp_path), "e", **how)
    categories = json.loads((tmp_path / "e/annotations.json").read_text())["categories"]
    assert [entry["name"] for entry in categories] == list(names)
    assert {entry["supercategory"] for entry in categories}.isdisjoint({*names, "none"})


@pytest.mark.parametrize("undecided", ["ignore", "drop", "include"])
def test_a_guarantee_says_how_many_labels_wait(tmp_path, images, undecided):
    guarantee = Guarantee(policy="p1", precision=0.95, confidence=0.9, gate="delivered", simulated=False)
    store, config = LocalStore(tmp_path), ExportConfig(undecided=undecided)
    how: dict[str, Any] = {"run": "main", "created": CREATED, "version": "1", "image_root": "r", "guarantee": guarantee}
    waiting = [label for image in images for label in image.labels if label.decision == "review"]
    assert write_dataset(images, CLASSES, config, store, "e", **how).guarantee.waiting == len(waiting) > 0
    decided = [
        image._replace(labels=[label._replace(reviewed="kept", verdict="correct") for label in image.labels])
        for image in images
    ]
    assert write_dataset(decided, CLASSES, config, store, "e", **how).guarantee.waiting == 0


def test_an_error_on_the_way_leaves_no_file(tmp_path, images):
    def broken():
        yield images[0]
        raise RuntimeError("lost the table")

    store = LocalStore(tmp_path / "workspace")
    with pytest.raises(RuntimeError, match="lost the table"):
        write_dataset(
            broken(), CLASSES, ExportConfig(), store, "e", run="main", created=CREATED, version="1", image_root="r"
        )
    assert list(store.list()) == []


def test_progress_counts_images(tmp_path, images):
    steps = []
    store = LocalStore(tmp_path / "workspace")
    arguments: dict[str, Any] = {"run": "main", "created": CREATED, "version": "1", "image_root": "r"}
    write_dataset(images, CLASSES, ExportConfig(), store, "e", progress=steps.append, **arguments)
    assert sum(steps) == len(images)


labels = st.builds(
    ExportLabel,
    label_id=st.text(max_size=8),
    class_name=st.sampled_from(CLASSES),
    xyxy=st.tuples(*[st.floats(-5, 50, width=32)] * 4),
    rle_counts=st.none() | st.binary().map(lambda raw: bytes(48 + byte % 64 for byte in raw)),
    area=st.integers(0, 100),
    score=st.floats(0, 1),
    p_correct=st.none() | st.floats(0, 1),
    decision=st.sampled_from(["accept", "review"]),
    policy=st.text(max_size=4),
)


SMALL = ExportLabel("", CLASSES[0], (0, 0, 0.06, 0.06), None, 0, 0.5, None, "accept", "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[("", [SMALL])], undecided="ignore")
@given(
    rows=st.lists(st.tuples(st.text(max_size=8), st.lists(labels, max_size=4)), max_size=5),
    undecided=st.sampled_from(["ignore", "drop", "include"]),
)
def test_ids_have_no_gap_and_counts_sum(tmp_path: Path, rows, undecided):
    images = [ExportImage(key, 40, 45, found) for key, found in rows]
    store = LocalStore(tmp_path)
    config = ExportConfig(undecided=undecided)
    summary = write_dataset(
        images, CLASSES, config, store, "e", run="main", created=CREATED, version="1", image_root="r"
    )
    document = json.loads((tmp_path / "e" / "annotations.json").read_text(encoding="utf-8"))
    assert [entry["id"] for entry in document["images"]] == list(range(1, len(images) + 1))
    assert [entry["file_name"] for entry in document["images"]] == [key for key, _ in rows]
    assert [entry["id"] for entry in document["annotations"]] == list(range(1, summary.annotations + 1))
    for entry in document["annotations"]:
        x, y, width, height = entry["bbox"]
        assert width > 0
        assert height > 0
        assert x >= 0
        assert x + width <= 40 + 1e-6
        assert y >= 0
        assert y + height <= 45 + 1e-6
        assert entry["area"] > 0
    total = sum(sum(counts.model_dump().values()) for counts in summary.classes.values())
    assert total == sum(len(found) for _, found in rows)
    by_id = {label.label_id: label for _, found in rows for label in found}
    for entry in document["annotations"]:
        given_label = by_id[entry["label_id"]]
        if len(by_id) == total and given_label.rle_counts is not None and given_label.area > 0:
            assert entry["segmentation"] == {"size": [45, 40], "counts": given_label.rle_counts.decode()}


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("count", [1, 50_000])
def test_no_room_for_temporary_files_says_what_to_do(tmp_path, monkeypatch, count):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: FULL.open("r+b", buffering=buffering))
    with pytest.raises(VouchError, match="free some space or set TMPDIR"):
        write(LocalStore(tmp_path), count)
    assert list(LocalStore(tmp_path).list()) == []


def test_a_missing_folder_for_temporary_files_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(VouchError, match="set TMPDIR"):
        write(LocalStore(tmp_path / "store"), 1)


def write(store, count):
    with open_document(store, "a.json", {"info": {}}, {"categories": []}) as document:
        for _ in range(count):
            document.add("{}", ["{}" * 20])


def test_members_come_in_the_order_given(tmp_path):
    store = LocalStore(tmp_path)
    with open_document(store, "a.json", {"first": 1, "second": [2]}, {"last": 3}) as document:
        document.add('{"id": 1}', ['{"id": 1}', '{"id": 2}'])
        document.add('{"id": 2}', [])
        document.add('{"id": 3}', ['{"id": 3}'])
    found = json.loads((tmp_path / "a.json").read_text())
    assert list(found) == ["first", "second", "images", "annotations", "last"]
    assert [entry["id"] for entry in found["images"]] == [1, 2, 3]
    assert [entry["id"] for entry in found["annotations"]] == [1, 2, 3]
    assert (document.images, document.annotations) == (3, 3)


NAMES = ("cat", "dog", "owl")


def label(decision="review", reviewed="", class_name="cat", verdict=None):
    return ExportLabel("1", class_name, (0, 0, 5, 5), None, 0, 0.5, None, decision, "p", reviewed, "auto", verdict)


@pytest.mark.parametrize(
    ("decision", "reviewed", "ignore", "drop", "include"),
    [
        ("accept", "", ("accepted", False), ("accepted", False), ("accepted", False)),
        ("review", "", ("undecided", True), ("dropped", False), ("undecided", False)),
        ("accept", "disputed", ("undecided", True), ("dropped", False), ("undecided", False)),
        ("accept", "unclear", ("undecided", True), ("dropped", False), ("undecided", True)),
        ("review", "unclear", ("undecided", True), ("dropped", False), ("undecided", True)),
        ("accept", "rejected", ("rejected", False), ("rejected", False), ("rejected", False)),
        ("review", "kept", ("kept", False), ("kept", False), ("kept", False)),
        ("review", "corrected", ("corrected", False), ("corrected", False), ("corrected", False)),
        (None, "added", ("added", False), ("added", False), ("added", False)),
    ],
)
def test_export_status(decision, reviewed, ignore, drop, include):
    one = label(decision, reviewed)
    assert (export_status(one, "ignore"), export_status(one, "drop"), export_status(one, "include")) == (
        ignore,
        drop,
        include,
    )


@pytest.mark.parametrize(
    ("checked", "labels", "statuses", "expected"),
    [
        ((), [], [], ("cat", "dog", "owl")),
        (NAMES, [], [], ()),
        (("dog", "gone"), [], [], ("cat", "owl")),
        (NAMES, [label("accept"), label(class_name="dog")], ["accepted", "dropped"], ("dog",)),
        (NAMES, [label(verdict="wrong_class")], ["undecided"], ("cat", "dog", "owl")),
        (NAMES, [label(verdict="wrong_class")], ["corrected"], ()),
        (NAMES, [label(verdict="bad_box")], ["unusable"], ("cat",)),
    ],
)
def test_classes_of_which_there_may_be_more(checked, labels, statuses, expected):
    image = ExportImage("a.png", 9, 9, labels, checked=frozenset(checked))
    assert not_exhaustive(image, statuses, NAMES) == expected


shares = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10)).filter(any)


def made(parts: tuple[int, int, int], seed: int = 0) -> Splits:
    total = sum(parts)
    return Splits(train=parts[0] / total, val=parts[1] / total, test=parts[2] / total, seed=seed)


@settings(deadline=None)
@given(parts=shares, seed=st.integers(0, 2**40))
def test_shares_are_kept(parts, seed):
    splits = made(parts, seed)
    found = [split_of(splits, f"image {number}") for number in range(2000)]
    for name in ("train", "val", "test"):
        share = getattr(splits, name)
        # Six standard deviations of a binomial: one false alarm in a hundred million draws.
        assert abs(found.count(name) - 2000 * share) <= 6 * (2000 * share * (1 - share)) ** 0.5


@settings(deadline=None)
@given(parts=shares, identity=st.text(), seed=st.integers(0, 100))
def test_a_split_without_a_share_gets_nothing(parts, identity, seed):
    splits = made(parts, seed)
    assert getattr(splits, split_of(splits, identity)) > 0


@settings(deadline=None)
@given(first=st.integers(0, 10), more=st.integers(0, 10), identity=st.text())
def test_a_larger_training_share_takes_images_and_gives_none_back(first, more, identity):
    small = made((first, 20 - first, 1))
    large = made((min(20, first + more), max(0, 20 - first - more), 1))
    if split_of(small, identity) == "train":
        assert split_of(large, identity) == "train"


def test_the_seed_matters_and_nothing_else():
    first, second = Splits(seed=1), Splits(seed=2)
    names = [f"image {number}" for number in range(200)]
    assert [split_of(first, name) for name in names] == [split_of(Splits(seed=1), name) for name in names]
    assert [split_of(first, name) for name in names] != [split_of(second, name) for name in names]


def test_a_known_image_keeps_its_split_for_ever():
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    splits = Splits(train=0.5, val=0.25, test=0.25)
    assert [split_of(splits, name) for name in names] == ["train", "train", "train", "val", "train", "train"]


def merged(documents):
    whole = dict(documents[0])
    for key in ("images", "annotations"):
        whole[key] = [entry for document in documents for entry in document[key]]
    return whole


def files_of(written, split="all", suffix=".json"):
    workspace = written.folder.parents[1]
    return [workspace / one.file for one in written.summary.splits[split].files if one.file.endswith(suffix)]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 100])
def test_several_files_hold_what_one_would(write, images, most):
    one = write(splits={"train": 0.5, "val": 0.3, "test": 0.2})
    whole = {split: read(one, Path(counts.file).name) for split, counts in one.summary.splits.items()}
    written = write(splits={"train": 0.5, "val": 0.3, "test": 0.2}, images_per_file=most)
    for split, expected in whole.items():
        documents = [json.loads(path.read_text()) for path in files_of(written, split)]
        assert merged(documents) == expected
        counts = written.summary.splits[split]
        assert [len(document["images"]) for document in documents] == [file.images for file in counts.files]
        assert all(file.images == most for file in counts.files[:-1])
        assert counts.files[-1].images <= most
        assert [len(document["annotations"]) for document in documents] == [file.annotations for file in counts.files]
        # Each is a data set by itself.
        for document in documents:
            assert {entry["image_id"] for entry in document["annotations"]} <= {
                entry["id"] for entry in document["images"]
            }
    ignored = {"splits"}
    assert written.summary.model_dump(exclude=ignored) == one.summary.model_dump(exclude=ignored)
    names = {path.name for path in written.folder.glob("annotations*")}
    assert names == {path.name for split in whole for path in files_of(written, split)}
    assert "annotations-00000.json" in names
    assert "annotations.json" not in names


def test_each_of_several_files_loads(write):
    for path in files_of(write(images_per_file=2)):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
        assert coco.getCatIds() == [1, 2, 3]
        for annotation in coco.loadAnns(coco.getAnnIds()):
            assert annotation["image_id"] in coco.imgs


def test_parquet_holds_what_json_does(write, images):
    written = write(formats=["coco", "parquet"], splits={"train": 0.5, "val": 0.5, "test": 0})
    for split in ("all", "train", "val"):
        ((file,), (table,)) = files_of(written, split), files_of(written, split, ".parquet")
        document = json.loads(file.read_text())
        rows = pq.read_table(table)
        assert [stated(row) for row in rows.to_pylist()] == [
            stated(entry | {"segmentation": entry["segmentation"] or None}) for entry in document["annotations"]
        ]
        about = pq.read_table(images_key(str(table)))
        assert [stated(row) for row in about.to_pylist()] == [stated(entry) for entry in document["images"]]
        for each in (rows, about):
            metadata = {key.decode(): json.loads(value) for key, value in each.schema.metadata.items()}
            assert metadata == {key: document[key] for key in ("info", "licenses", "categories")}


def stated(entry):
    return {key: value for key, value in entry.items() if value is not None}


def test_parquet_comes_in_several_files_too(write, images):
    whole = write(formats=["parquet"])
    (one,) = files_of(whole, suffix=".parquet")
    rows, about = pq.read_table(one).to_pylist(), pq.read_table(images_key(str(one))).to_pylist()
    parts = files_of(write(formats=["parquet"], images_per_file=3), suffix=".parquet")
    assert [path.name for path in parts] == ["annotations-00000.parquet", "annotations-00001.parquet"]
    assert [row for path in parts for row in pq.read_table(path).to_pylist()] == rows
    assert [row for path in parts for row in pq.read_table(images_key(str(path))).to_pylist()] == about


def test_parquet_is_written_in_groups(write, images, monkeypatch):
    (one,) = files_of(write(formats=["parquet"]), suffix=".parquet")
    expected = pq.read_table(one)
    monkeypatch.setattr(files, "GROUP_BYTES", 1)
    (one,) = files_of(write(formats=["parquet"]), suffix=".parquet")
    assert pq.read_table(one) == expected
    assert pq.ParquetFile(one).num_row_groups > 1


def test_files_of_an_earlier_export_do_not_stay(write, images):
    kinds: list[dict[str, Any]] = [
        {"images_per_file": 1}, {"images_per_file": 2}, {}, {"formats": ["parquet"], "images_per_file": 1},
        {"formats": ["parquet"]}, {"formats": ["coco", "parquet"], "splits": {}}, {"images_per_file": 3},
    ]  # fmt: skip
    for kind in kinds:
        written = write(**kind)
        (written.folder / "annotations-mine.json").write_text("")
        present = {path.name for path in written.folder.iterdir()} - {"annotations-mine.json"}
        expected = {Path(one.file).name for counts in written.summary.splits.values() for one in counts.files}
        tables = {name for name in expected if name.endswith(".parquet")}
        assert present == expected | {name.replace("annotations", "images") for name in tables}
        assert (written.folder / "annotations-mine.json").exists()


def test_no_image_makes_one_file_all_the_same(write):
    written = write([], images_per_file=5, formats=["coco", "parquet"])
    (file,), (table,) = files_of(written), files_of(written, suffix=".parquet")
    assert json.loads(file.read_text())["images"] == []
    assert pq.read_table(table).num_rows == pq.read_table(images_key(str(table))).num_rows == 0


def test_an_error_leaves_no_partial_file_among_several(tmp_path, images):
    def broken():
        yield from images[:3]
        raise RuntimeError("lost the table")

    store = LocalStore(tmp_path / "workspace")
    config = ExportConfig(images_per_file=2, formats=("coco", "parquet"))
    with pytest.raises(RuntimeError, match="lost the table"):
        write_dataset(broken(), CLASSES, config, store, "e", run="main", created=CREATED, version="1", image_root="r")
    assert [info.key for info in store.list()] == [
        "e/annotations-00000.json", "e/annotations-00000.parquet", "e/images-00000.parquet",
    ]  # fmt: skip
    assert len(json.loads((tmp_path / "workspace/e/annotations-00000.json").read_text())["images"]) == 2
