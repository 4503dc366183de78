"""Reading ground truth.

Which images and which classes are the same.
"""

import json
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.evaluate.ground_truth import RunLengths, objects_of, pair_classes, pair_images, read_truth

IMAGE = {"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}
CATEGORY = {"id": 3, "name": "cat"}
BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 1, 8, 6], "iscrowd": 0}


@pytest.fixture
def read(tmp_path):
    def read(annotations=(BOX,), images=(IMAGE,), categories=(CATEGORY,)):
        path = tmp_path / "truth.json"
        path.write_text(
            json.dumps({"images": list(images), "annotations": list(annotations), "categories": list(categories)})
        )
        return read_truth(path)

    return read


def problem(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_kept(read):
    truth = read([BOX, {**BOX, "id": 2, "iscrowd": 1, "attributes": {"bbox": [1]}}])
    assert truth.images[0] == (7, "a.jpg", 20, 10)
    assert truth.categories == {3: "cat"}
    first, second = truth.objects[7]
    assert (first.xywh, first.crowd, second.crowd, first.segmentation) == ((2, 1, 8, 6), False, True, None)
    assert truth.counts() == {"cat": 2}


def test_file_names_with_backslashes_and_text_ids(read):
    truth = read([], images=[{"id": "x", "file_name": ".\\train\\a.jpg"}])
    assert truth.images[0] == ("x", "train/a.jpg", None, None)


def test_annotations_of_unknown_images_and_categories_are_left_out(read):
    assert read([{**BOX, "image_id": 8}, {**BOX, "category_id": 9}]).objects == {}


@pytest.mark.parametrize(
    "segmentation",
    [
        [[2, 1, 10, 1, 10, 7, 2, 7]],
        [[2, 1, 6, 1, 6, 7, 2, 7], [6, 1, 10, 1, 10, 7, 6, 7]],
        {"size": [10, 20], "counts": "compressed"},
        {"size": [10, 20], "counts": "plain"},
    ],
    ids=["polygon", "two polygons", "compressed", "plain"],
)
def test_every_way_of_writing_a_mask(read, segmentation):
    mask = np.zeros((10, 20), np.uint8, order="F")
    mask[1:7, 2:10] = 1
    if isinstance(segmentation, dict):
        compressed = mask_utils.encode(mask)["counts"].decode()
        flat = mask.reshape(-1, order="F").astype(int)
        edges = np.flatnonzero(np.diff(flat, prepend=0))
        plain = np.diff([0, *edges, len(flat)]).tolist()
        segmentation["counts"] = compressed if segmentation["counts"] == "compressed" else plain
    truth = read([{**BOX, "segmentation": segmentation}])
    found = objects_of(truth.objects[7], [0], (10, 20), truth.path, masks=True)
    np.testing.assert_array_equal(mask_utils.decode(found.masks[0]), mask)
    assert (found.xywh.tolist(), found.class_index.tolist(), found.crowd.tolist()) == ([[2, 1, 8, 6]], [0], [False])


@pytest.mark.parametrize(
    "segmentation", [[], None, [[1, 2, 3]], [["x"] * 6], {"size": [10, 20]}, {"size": [10, 20], "counts": [5]}, "x"]
)
def test_what_is_no_mask_is_none(read, segmentation):
    assert read([{**BOX, "segmentation": segmentation}]).objects[7][0].segmentation is None


def test_masks_that_do_not_fit_their_image(read):
    counts = mask_utils.encode(np.ones((10, 10), np.uint8, order="F"))["counts"].decode()
    small = read([{**BOX, "segmentation": {"size": [10, 10], "counts": counts}}])
    message = problem(objects_of, small.objects[7], [0], (10, 20), small.path, masks=True)
    assert "truth.json: the mask of annotation 1 is 10 x 10 pixels, its image 20 x 10" in message
    damaged = read([{**BOX, "segmentation": {"size": [10, 20], "counts": counts}}])
    assert isinstance(damaged.objects[7][0].segmentation, RunLengths)
    message = problem(objects_of, damaged.objects[7], [0], (10, 20), damaged.path, masks=True)
    assert "the run lengths of annotation 1 are damaged" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON (line 1: Expecting value)"),
        ('{"images": [', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("\ud800", "is no JSON"),
        ("[]", "is no COCO instances file; it must be a JSON object with the lists images, annotations, categories"),
        ('{"images": [], "annotations": []}', "is no COCO instances file"),
        ('{"images": {}, "annotations": [], "categories": []}', "is no COCO instances file"),
    ],
)
def test_what_is_no_coco_file(tmp_path, text, message):
    path = tmp_path / "truth.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert problem(read_truth, path).startswith(f"{path}: {message}")


def test_no_such_file_and_a_folder(tmp_path):
    assert "nowhere.json: there is no such file" in problem(read_truth, tmp_path / "nowhere.json")
    assert "cannot be read (Is a directory)" in problem(read_truth, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 7, "caption": "a cat"}]}, "annotations[0] needs an image_id, a category_id"),
        ({"annotations": [{**BOX, "bbox": [1, 2, 3]}]}, "annotation 1: bbox must be left, top, width and height"),
        ({"annotations": [{**BOX, "bbox": [1, 2, -3, 4]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "bbox": [1, 2, float("nan"), 4]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "image_id": [7]}]}, "annotation 1: image_id and category_id must be"),
        ({"images": [{"id": 7}]}, "images[0] needs an id and a file_name"),
        ({"images": [{"id": 7, "file_name": 3}]}, "image 7: its id must be a number or text, its file_name text"),
        ({"images": [IMAGE, {**IMAGE, "id": 8}]}, "two images have the file_name 'a.jpg'"),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, "two images have the id 7"),
        ({"categories": [{"id": 3}]}, "categories[0] needs an id and a name"),
    ],
)
def test_elements_that_are_not_what_coco_has_there(read, changes, message):
    assert message in problem(read, **changes)


paths = st.lists(
    st.lists(st.sampled_from(string.ascii_lowercase[:3]), min_size=1, max_size=3).map("/".join), unique=True, max_size=8
)


def test_equal_names():
    found = pair_images(["a.jpg", "b/c.jpg", "x.jpg"], ["b/c.jpg", "a.jpg", "y.jpg"])
    assert (found.rule, found.places, found.ambiguous) == ("file_name", {"a.jpg": 1, "b/c.jpg": 0}, [])


def test_ends_count_only_when_no_name_is_equal():
    assert pair_images(["a.jpg", "sub/b.jpg"], ["a.jpg", "b.jpg"]).places == {"a.jpg": 0}
    found = pair_images(["train/a.jpg", "train/b.jpg", "ab.jpg"], ["a.jpg", "x/train/b.jpg", "b.jpg"[1:]])
    assert (found.rule, found.places) == ("path_end", {"train/a.jpg": 0, "train/b.jpg": 1})


def test_ends_that_several_share():
    found = pair_images(["x/a.jpg", "y/a.jpg", "x/b.jpg"], ["a.jpg", "b.jpg"])
    assert (found.places, sorted(found.ambiguous)) == ({"x/b.jpg": 1}, ["x/a.jpg", "y/a.jpg"])
    found = pair_images(["a.jpg"], ["x/a.jpg", "y/a.jpg"])
    assert (found.places, found.ambiguous) == ({}, ["a.jpg"])


@given(keys=paths, names=paths)
def test_no_image_is_paired_twice_and_all_pairs_end_alike(keys, names):
    found = pair_images(keys, names)
    assert len(set(found.places.values())) == len(found.places)
    for key, place in found.places.items():
        assert f"/{key}".endswith(f"/{names[place]}") or f"/{names[place]}".endswith(f"/{key}")
    common = set(keys) & set(names)
    assert (found.rule == "file_name") == bool(common)
    if common:
        assert {names[place] for place in found.places.values()} == common
    assert not set(found.ambiguous) & found.places.keys()


def test_classes_by_name():
    found = pair_classes(["cat", "Dog", "heron"], {1: " dog", 2: "CAT", 5: "wolf", 9: "cat"})
    assert (found.common, found.run_only, found.truth_only) == (("cat", "Dog"), ("heron",), ("wolf",))
    assert found.place_of_category == {1: 1, 2: 0, 9: 0}


def test_classes_that_differ_in_case_alone():
    found = pair_classes(["Cat", "cat"], {1: "cat", 2: "CAT"})
    assert found.common == ("Cat", "cat")
    assert found.place_of_category == {1: 1, 2: 0}


def test_no_common_class():
    assert pair_classes(["cat"], {1: "dog"}).common == ()
