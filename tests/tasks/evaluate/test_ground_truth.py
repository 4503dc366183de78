"""Reading ground truth: what is taken, left out and counted, refused; which images and classes are the same."""

import gzip
import io
import json
import string
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import TruthFile
from vouch_labels.tasks.evaluate import json_lists, polygons
from vouch_labels.tasks.evaluate.ground_truth import BoxCheck, RunLengths, objects_of, read_truth
from vouch_labels.tasks.evaluate.pairing import pair_classes, pair_images
from vouch_labels.tasks.evaluate.polygons import pack_polygons, unpack_polygons

IMAGE = {"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}
CATEGORY = {"id": 3, "name": "cat"}
BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 1, 8, 6], "iscrowd": 0}
paths = st.lists(
    st.lists(st.sampled_from(string.ascii_lowercase[:3]), min_size=1, max_size=3).map("/".join), unique=True, max_size=8
)


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


def drawn(truth, size=(10, 20)):
    """The masks of the first image, decoded."""
    rows = truth.rows(0)
    found = objects_of(truth, rows, np.zeros(len(rows), np.int64), size, masks=True)
    return [mask_utils.decode(mask) for mask in found.masks]


def test_what_is_kept(read):
    truth = read([BOX, {**BOX, "id": 2, "iscrowd": 1, "attributes": {"bbox": [1]}}])
    assert truth.images[0] == (7, "a.jpg", 20, 10)
    assert truth.categories == {3: "cat"}
    assert truth.rows(0).tolist() == [0, 1]
    assert truth.xywh.tolist() == [[2, 1, 8, 6]] * 2
    assert (truth.crowd.tolist(), truth.has_mask.tolist()) == ([False, True], [False, False])
    assert truth.counts() == {"cat": 2}
    assert [truth.name(row) for row in (0, 1)] == ["annotation 1", "annotation 2"]


def test_annotations_of_an_image_come_together_in_their_order(read):
    images = [IMAGE, {"id": 8, "file_name": "b.jpg"}, {"id": 9, "file_name": "c.jpg"}]
    rows = [{**BOX, "id": number, "image_id": image} for number, image in enumerate((9, 7, 9, 7))]
    truth = read(rows, images=images)
    assert [[truth.name(row) for row in truth.rows(place).tolist()] for place in range(3)] == [
        ["annotation 1", "annotation 3"], [], ["annotation 0", "annotation 2"],
    ]  # fmt: skip


def test_the_order_of_the_lists_does_not_matter(tmp_path):
    path = tmp_path / "truth.json"
    lists = {
        "annotations": [BOX],
        "info": {"images": [1], "x": [[2]]},
        "more": [{"id": 1}, 2],
        "categories": [CATEGORY],
    }
    path.write_text(json.dumps(lists | {"images": [IMAGE], "year": 2026}, indent=2))
    assert read_truth(path).rows(0).tolist() == [0]


def test_file_names_with_backslashes_and_text_ids(read):
    truth = read([], images=[{"id": "x", "file_name": ".\\train\\a.jpg"}])
    assert truth.images[0] == ("x", "train/a.jpg", None, None)


@pytest.mark.parametrize(
    ("image", "category", "image_id", "category_id"),
    [
        (7, 3, "7", "3"),
        ("7", "3", 7, 3),
        (7.0, 3.0, 7, "3"),
        (7, 3, 7.0, 3.0),
        ("a", "b", "a", "b"),
        ("07", 3, "07", 3),
    ],
)
def test_ids_of_equal_value_are_equal(read, image, category, image_id, category_id):
    truth = read(
        [{**BOX, "image_id": image_id, "category_id": category_id}],
        images=[{**IMAGE, "id": image, "width": 20.0, "height": "10"}],
        categories=[{**CATEGORY, "id": category}],
    )
    assert truth.rows(0).tolist() == [0]
    assert (truth.images[0].width, truth.images[0].height) == (20, 10)
    assert list(truth.file.lines()) == []


def test_annotations_of_unknown_images_and_categories_are_left_out_and_counted(read):
    rows = [{**BOX, "id": 4, "image_id": "07"}, {**BOX, "id": 5, "category_id": 9}, {**BOX, "id": "x", "image_id": 8}]
    truth = read([BOX, *rows])
    assert truth.rows(0).tolist() == [0]
    file = truth.file
    assert (file.annotations, file.unknown_image, file.unknown_category, file.left_out) == (4, 2, 1, 3)
    assert list(file.lines()) == [
        "left out: 2 of 4 annotations: an image_id that the truth does not list: annotation 4, annotations[3]",
        "left out: 1 of 4 annotations: a category_id that the truth does not list: annotation 5",
    ]
    assert list(file.doubts()) == ["75% of the annotations name an image or a category that the truth does not list"]
    assert list(TruthFile(annotations=200, unknown_image=2).doubts()) == []


@pytest.mark.parametrize(
    ("switches", "crowd"),
    [
        ({}, False), ({"iscrowd": None}, False), ({"iscrowd": 0}, False), ({"iscrowd": False}, False),
        ({"iscrowd": "0"}, False), ({"iscrowd": 1}, True), ({"iscrowd": 1.0}, True), ({"iscrowd": True}, True),
        ({"iscrowd": "1"}, True), ({"iscrowd": 0, "ignore": 1}, True), ({"ignore": 0}, False),
    ],
)  # fmt: skip
def test_crowds(read, switches, crowd):
    truth = read([{key: value for key, value in BOX.items() if key != "iscrowd"} | switches])
    assert truth.crowd.tolist() == [crowd]
    told = ["1 annotation has ignore: 1, and is taken as a crowd region"] if switches.get("ignore") else []
    assert list(truth.file.lines()) == told


def test_nested_objects_are_no_records(read):
    inner = {"bbox": "left", "image_id": None, "category_id": None, "id": [], "file_name": 5}
    truth = read(
        [{**BOX, "attributes": inner}], images=[{**IMAGE, "meta": inner}], categories=[{**CATEGORY, "x": inner}]
    )
    assert truth.rows(0).tolist() == [0]


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
    found = objects_of(truth, truth.rows(0), np.array([0]), (10, 20), masks=True)
    np.testing.assert_array_equal(mask_utils.decode(found.masks[0]), mask)
    assert (found.xywh.tolist(), found.class_index.tolist(), found.crowd.tolist()) == ([[2, 1, 8, 6]], [0], [False])


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        None,
        [[1, 2, 3]],
        [["x"] * 6],
        [[[1, 2]] * 6],
        [[1, [2]] * 3],
        {"size": [10, 20]},
        {"counts": "x"},
        "x",
        5,
        {"size": [10, 20], "counts": ""},
        {"size": [10, 20], "counts": []},
    ],
)
def test_what_is_no_mask_is_none(read, segmentation):
    truth = read([{**BOX, "segmentation": segmentation}])
    assert (truth.has_mask.tolist(), truth.masks) == ([False], [None])


def test_masks_that_are_not_asked_for_are_checked_and_not_kept(tmp_path):
    path = tmp_path / "truth.json"
    masks = [[[2, 1, 6, 1, 6, 7]], {"size": [10, 20], "counts": [200]}, {"size": [10, 20], "counts": "o5"}, None]
    rows = [{**BOX, "id": number, "segmentation": mask} for number, mask in enumerate(masks)]
    path.write_text(json.dumps({"images": [IMAGE], "annotations": rows, "categories": [CATEGORY]}))
    truth = read_truth(path, masks=False)
    assert (truth.masks, truth.has_mask.tolist()) == ([], [True, True, True, False])


def test_masks_that_do_not_fit_their_image(read):
    counts = mask_utils.encode(np.ones((10, 10), np.uint8, order="F"))["counts"].decode()
    small = read([{**BOX, "segmentation": {"size": [10, 10], "counts": counts}}])
    assert "truth.json: the mask of annotation 1 is 10 x 10 pixels, its image 20 x 10" in problem(drawn, small)
    damaged = read([{**BOX, "segmentation": {"size": [10, 20], "counts": counts}}])
    assert isinstance(damaged.masks[0], RunLengths)
    assert "the run lengths of annotation 1 are damaged" in problem(drawn, damaged)


@pytest.mark.parametrize("counts", [[-5, 205], [5], [1.5, 198.5], [True, 199, "0"], "\u00e9"])
def test_run_lengths_that_are_none(read, counts):
    message = problem(read, [{**BOX, "segmentation": {"size": [10, 20], "counts": counts}}])
    assert "annotation 1: the run lengths of its mask are damaged" in message


def test_masks_are_those_of_pycocotools(read):
    """Vertices between pixels, and up to an image's side outside it."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        parts = [rng.uniform(-9, 19, 2 * rng.integers(3, 9)).round(2).tolist() for _ in range(rng.integers(1, 4))]
        truth = read([{**BOX, "segmentation": parts}])
        expected = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(parts, 10, 20)))
        np.testing.assert_array_equal(drawn(truth)[0], expected)


def test_a_polygon_far_outside_is_cut_where_nothing_is_seen(read):
    truth = read(
        [{**BOX, "segmentation": [[5, -4000, 5000, 5, 5, 4000]]}, {**BOX, "id": 2, "segmentation": [[900] * 6]}]
    )
    seen, outside = drawn(truth)
    expected = np.zeros((10, 20), np.uint8)
    expected[:, 5:] = 1
    np.testing.assert_array_equal(seen, expected)
    assert outside.sum() == 0


def test_outlines_are_bounded(read, monkeypatch):
    monkeypatch.setattr(polygons, "MOST_OUTLINE", 200)
    truth = read([{**BOX, "segmentation": [[0, 0, 19, 0] * 3]}])
    assert "annotation 1 has an outline of " in problem(drawn, truth)


@pytest.mark.parametrize("limit", [100, 20_000])
def test_packed_polygons_keep_their_fifths(limit):
    rng = np.random.default_rng(1)
    given = [rng.uniform(-limit, limit, 2 * count) for count in (3, 7, 4)]
    found = unpack_polygons(pack_polygons(given))
    for before, after in zip(given, found, strict=True):
        np.testing.assert_array_equal(np.trunc(5 * after.reshape(-1) + 0.5), np.trunc(5 * before + 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON (line 1: Expecting value)"),
        ('{"images": [', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"more": [1, 2', "is no JSON (line 1: expecting"),
        ('{"more": [{"id": 1},\n], "annotations": []}', "is no JSON (line 2: Expecting value"),
        ('{"images": [],}', "is no JSON (line 1: expecting a name in double quotes"),
        ('{"images": [] "annotations": []}', "is no JSON (line 1: expecting ',' or '}'"),
        ('{"images": [], "annotations": [], "categories": []} x', "is no JSON (line 1: Extra data"),
        ('{"images": [], "images": [], "categories": []}', "is no JSON (line 1: the list 'images' is there twice"),
        ('{"x": ' + "9" * 5000 + "}", "is no JSON (line 1: Exceeds the limit"),
        ("\ud800", "is not UTF-8"),
        ("\ufeff", "is no JSON (line 1: Expecting value)"),
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
        ({"annotations": [5]}, "annotations[0] is no object"),
        ({"annotations": [{**BOX, "bbox": [1, 2, 3, 10**400]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "bbox": [1, 2, 3, float("inf")]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "bbox": [True, 2, 3, 4]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "iscrowd": "false"}]}, "annotation 1: iscrowd must be 0 or 1, not 'false'"),
        ({"annotations": [{**BOX, "iscrowd": 2}]}, "annotation 1: iscrowd must be 0 or 1, not 2"),
        ({"annotations": [{**BOX, "ignore": []}]}, "annotation 1: ignore must be 0 or 1, not []"),
        ({"annotations": [{**BOX, "segmentation": [[1, 2, 3, 4, 5, 1e12]]}]}, "annotation 1: its outline has coord"),
        ({"annotations": [{**BOX, "segmentation": [[1, 2, 3, 4, 5, 10**30]]}]}, "annotation 1: its outline has coord"),
        ({"annotations": [{**BOX, "segmentation": {"size": [-1, 5], "counts": "1"}}]}, "annotation 1: the size of"),
        ({"annotations": [{**BOX, "segmentation": {"size": [10**6] * 2, "counts": "1"}}]}, "annotation 1: the size of"),
        ({"annotations": [BOX, BOX]}, "annotations[0] and annotations[1] have the same id"),
        ({"annotations": [{**BOX, "id": "x"}, BOX, {**BOX, "id": "x"}]}, "annotations[0] and annotations[2] have the"),
        ({"annotations": [{**BOX, "image_id": 7.5}]}, "annotation 1: image_id and category_id must be"),
        ({"images": [{"id": 7, "file_name": "\ud800"}]}, "image 7: its id must be a whole number or text"),
        ({"images": [{"id": 7, "file_name": "/" * 5000}]}, "image 7: its id must be a whole number or text"),
        ({"images": [IMAGE, {"id": "7", "file_name": "b.jpg"}]}, "two images have the id 7"),
        ({"categories": [CATEGORY, {"id": 3.0, "name": "wolf"}]}, "two categories have the id 3: 'cat' and 'wolf'"),
        ({"annotations": [{**BOX, "bbox": [1, 2, 3]}]}, "annotation 1: bbox must be left, top, width and height"),
        ({"annotations": [{**BOX, "bbox": [1, 2, -3, 4]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "bbox": [1, 2, float("nan"), 4]}]}, "annotation 1: bbox must be"),
        ({"annotations": [{**BOX, "image_id": [7]}]}, "annotation 1: image_id and category_id must be"),
        ({"images": [{"id": 7}]}, "images[0] needs an id and a file_name"),
        ({"images": [{"id": 7, "file_name": 3}]}, "image 7: its id must be a whole number or text, its file_name text"),
        ({"images": [IMAGE, {**IMAGE, "id": 8}]}, "two images have the file_name 'a.jpg'"),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, "two images have the id 7"),
        ({"categories": [{"id": 3}]}, "categories[0] needs an id and a name"),
    ],
)
def test_elements_that_are_not_what_coco_has_there(read, changes, message):
    assert message in problem(read, **changes)


def test_an_annotation_without_an_id_is_named_by_its_place(read):
    row = {key: value for key, value in BOX.items() if key != "id"}
    assert "annotations[1]: bbox must be" in problem(read, [row, {**row, "bbox": [1]}])
    truth = read([row, row])
    assert [truth.name(row) for row in (0, 1)] == ["annotations[0]", "annotations[1]"]


def _zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("truth.json", data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (_zipped, "is a ZIP archive; unpack it"),
        (gzip.compress, "is compressed with gzip; unpack it"),
        (lambda data: data.decode().encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (lambda data: data.decode().encode("utf-16-le"), "is UTF-16; save it as UTF-8"),
        (lambda data: data.decode().encode("utf-32"), "is UTF-32; save it as UTF-8"),
        (lambda data: data.decode().encode("latin-1"), "is not UTF-8 (byte "),
    ],
    ids=["zip", "gzip", "utf-16", "utf-16 without a mark", "utf-32", "latin-1"],
)
def test_other_encodings_are_named(tmp_path, convert, message):
    document = {"images": [{"id": 7, "file_name": "Straße.jpg"}], "annotations": [], "categories": []}
    path = tmp_path / "truth.json"
    path.write_bytes(convert(json.dumps(document, ensure_ascii=False).encode()))
    assert message in problem(read_truth, path)


def test_a_byte_order_mark_is_no_matter(tmp_path):
    path = tmp_path / "truth.json"
    document = {"images": [{"id": 7, "file_name": "Straße.jpg"}], "annotations": [], "categories": []}
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8-sig")
    assert read_truth(path).images[0].file_name == "Straße.jpg"


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_read_in_whatever_pieces(read, monkeypatch, chunk):
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    image = {**IMAGE, "file_name": 'Straße \\u00e9 "\\\\" \U0001f600.jpg'}
    truth = read([{**BOX, "bbox": [2.5, 1e-1, -0 + 8, 6.125], "note": [None, True, -1.5e3]}] * 1, images=[image])
    assert truth.images[0].file_name == str(image["file_name"]).replace("\\", "/")
    assert truth.xywh.tolist() == [[2.5, 0.1, 8, 6.125]]


def test_one_element_is_bounded(read, monkeypatch):
    monkeypatch.setattr(json_lists, "_CHUNK", 100)
    monkeypatch.setattr(json_lists, "MOST_ELEMENT", 1000)
    assert "is no JSON (line 1: a value of more than" in problem(read, [{**BOX, "note": "x" * 5000}])


def test_reading_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lists, "_CHUNK", 1000)
    path = tmp_path / "truth.json"
    rows = [{**BOX, "id": number} for number in range(50)]
    path.write_text(json.dumps({"images": [IMAGE], "annotations": rows, "categories": [CATEGORY]}))
    seen = []
    read_truth(path, progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (size, size)
    assert len(seen) > 3


def _hints(boxes, size=(100, 200)):
    check = BoxCheck()
    check.add(np.array(boxes, np.float64).reshape(-1, 4), size)
    return check.hints()


def test_boxes_that_are_none():
    corners = [[10 * step, 5 * step, 10 * step + 40, 5 * step + 20] for step in range(3, 15)]
    (hint,) = _hints(corners)
    assert "boxes reach beyond their image, and none would as x0, y0, x1, y1: bbox is left, top, width, height" in hint
    (hint,) = _hints([[0.5, 0.5, 0.2, 0.3]] * 3)
    assert hint == "every box lies within the first pixel: bbox is in pixels, not a share from 0 to 1"
    (hint,) = _hints([[150, 10, 90, 20]] * 9)
    assert hint == "9 of 9 boxes reach beyond their image"
    assert _hints([[10, 5, 40, 20], [0, 0, 200, 100]] * 9) == ()
    assert _hints([[150, 10, 51, 20]] * 9) == (), "a pixel over the edge"
    assert _hints([]) == ()


# Which images and which classes are the same.


def test_equal_names():
    found = pair_images(["a.jpg", "b/c.jpg", "x.jpg"], ["b/c.jpg", "a.jpg", "y.jpg"])
    assert (found.rule, found.places, found.ambiguous) == ("file_name", {"a.jpg": 1, "b/c.jpg": 0}, [])


def test_ends_count_for_those_that_have_no_equal():
    found = pair_images(["a.jpg", "sub/b.jpg", "sub/a.jpg"], ["a.jpg", "b.jpg"])
    assert (found.rule, found.places, found.ambiguous) == ("both", {"a.jpg": 0, "sub/b.jpg": 1}, [])
    found = pair_images(["a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "../label/b.jpg", "train/c.jpg"])
    assert found.places == {"a.jpg": 0, "b.jpg": 1, "c.jpg": 2}
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
    assert {key: found.places.get(key) for key in common} == {name: names.index(name) for name in common}
    by_end = len(found.places) - len(common)
    assert found.rule == ("both" if common and by_end else "path_end" if by_end else "file_name")
    assert not set(found.ambiguous) & found.places.keys()


def test_classes_by_name():
    found = pair_classes(["cat", "Dog", "heron"], {1: " dog", 2: "CAT", 5: "wolf", 9: "cat"})
    assert (found.common, found.run_only, found.truth_only) == (("cat", "Dog"), ("heron",), ("wolf",))
    assert found.place_of_category == {1: 1, 2: 0, 9: 0}


def test_classes_that_differ_in_case_alone():
    found = pair_classes(["Cat", "cat"], {1: "cat", 2: "CAT"})
    assert found.common == ("Cat", "cat")
    assert found.place_of_category == {1: 1, 2: 0}


def test_former_names_stand_for_the_classes_that_were_made_of_them():
    found = pair_classes(["hound", "pet", "cat"], {1: "Dog", 2: "hamster", 3: "cat", 4: "hound"},
                         {"dog": "hound", "hamster": "pet", "cat": "pet"})  # fmt: skip
    assert found.place_of_category == {1: 0, 2: 1, 3: 2, 4: 0}  # a name that a class has now is no former one
    assert found.former == {"Dog": "hound", "hamster": "pet"}
    assert found.truth_only == ()


def test_no_common_class():
    assert pair_classes(["cat"], {1: "dog"}).common == ()
