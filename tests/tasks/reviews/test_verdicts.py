import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_utils

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.reviews import MOST_RLE_BYTES, VERDICTS
from vouch_labels.tasks.reviews.verdicts import looks_like_rle, mask_trouble, read_verdicts, write_verdicts
from vouch_labels.tasks.store.local import LocalStore


@pytest.fixture
def workspace(tmp_path):
    return LocalStore(tmp_path / "workspace")


def keys(store) -> list[str]:
    return [info.key for info in store.list("reviews/")]


def test_same_rows_again_write_nothing(store, verdicts):
    rows = [{"label_id": f"{number}", "at": number} for number in range(5)]
    name = write_verdicts(store, verdicts(*rows))
    assert write_verdicts(store, verdicts(*rows[::-1])) == name
    assert keys(store) == [f"reviews/{name}.parquet", "reviews/log/000001.json"]
    assert write_verdicts(store, verdicts(*rows[1:])) != name
    assert len(keys(store)) == 4


def test_read_in_the_order_of_time_then_file_then_row(workspace, verdicts):
    later = write_verdicts(workspace, verdicts({"label_id": "c", "at": 2}, {"label_id": "a", "at": 0}))
    first, second = (
        write_verdicts(workspace, verdicts({"label_id": name, "at": 1, "verdict": "bad_box"})) for name in "xy"
    )
    write_verdicts(workspace, verdicts({"label_id": "never", "at": None}))
    middle = [name for _, name in sorted([(first, "x"), (second, "y")])]
    assert read_verdicts(workspace)["label_id"].to_pylist() == ["never", "a", *middle, "c"]
    assert later not in (first, second)


def test_order_of_one_reviewers_words_on_one_label_is_kept(workspace, verdicts):
    names = ("correct", "bad_box", "correct", "not_an_object")
    write_verdicts(workspace, verdicts(*({"label_id": "1", "verdict": name} for name in names)))
    assert tuple(read_verdicts(workspace)["verdict"].to_pylist()) == names


def test_nothing_written_nothing_read(workspace, verdicts):
    assert write_verdicts(workspace, verdicts()) == ""
    assert keys(workspace) == []
    assert read_verdicts(workspace).equals(VERDICTS.empty_table())


def test_plans_and_other_files_are_no_verdicts(workspace, verdicts):
    write_verdicts(workspace, verdicts({"label_id": "1"}))
    workspace.put("reviews/plans/main/0001-tasks.parquet", b"x")
    workspace.put("reviews/notes.txt", b"x")
    assert read_verdicts(workspace).num_rows == 1


def test_nan_is_null(workspace, verdicts):
    nan = float("nan")
    write_verdicts(workspace, verdicts({"label_id": "1", "seconds": nan, "box": (nan, nan, nan, nan)}))
    assert read_verdicts(workspace).select(["x0", "seconds"]).to_pylist() == [{"x0": None, "seconds": None}]


def test_masks_are_kept(workspace, verdicts):
    write_verdicts(workspace, verdicts({"label_id": "1", "rle_counts": b"52203"}, {"label_id": "2", "at": 1}))
    write_verdicts(workspace, verdicts({"label_id": "3", "at": 2}))
    table = read_verdicts(workspace)
    assert table.schema.equals(VERDICTS)
    assert table["rle_counts"].to_pylist() == [b"52203", None, None]


def test_files_from_before_there_were_masks(workspace, verdicts):
    before = verdicts({"label_id": "1", "verdict": "bad_box", "box": (1, 2, 3, 4), "seconds": 2})
    sink = io.BytesIO()
    pq.write_table(before.drop_columns("rle_counts"), sink, compression="zstd")
    name = hashlib.sha256(sink.getvalue()).hexdigest()[:32]
    workspace.put(f"reviews/{name}.parquet", sink.getvalue())
    assert read_verdicts(workspace).equals(before)
    assert write_verdicts(workspace, before) == name
    other = io.BytesIO()
    pq.write_table(before.drop_columns(["rle_counts", "seconds"]), other)
    workspace.put("reviews/mine.parquet", other.getvalue())
    with pytest.raises(StoreError, match="does not have the columns of verdicts"):
        read_verdicts(workspace)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"label_id": "1", "verdict": "good"}, "'good' is no verdict"),
        ({"key": "a.png"}, "names neither a label nor an image"),
        ({"label_id": "1", "verdict": "checked"}, "names neither a label nor an image"),
        ({"label_id": "1", "box": (1, 2, 3, None)}, "a box is not"),
        ({"label_id": "1", "box": (1, 2, float("inf"), 3)}, "a box is not"),
        ({"label_id": "1", "box": (1, 2, 1, 3)}, "a box is not"),
        ({"key": "a.png", "verdict": "missed", "class_name": "cat"}, "a missed object has no box or no class"),
        ({"label_id": "1", "rle_counts": b""}, "a mask is no compressed COCO RLE"),
        ({"label_id": "1", "rle_counts": b"522\xff"}, "a mask is no compressed COCO RLE"),
        ({"label_id": "1", "rle_counts": b"1" * (MOST_RLE_BYTES + 1)}, "a mask is no compressed COCO RLE"),
        ({"key": "a.png", "verdict": "missed", "box": (1, 2, 3, 4)}, "a missed object has no box or no class"),
    ],
)
def test_what_is_no_verdict_is_neither_written_nor_read(workspace, verdicts, row, problem):
    table = verdicts({"label_id": "0"}, row)
    with pytest.raises(ValueError, match=problem):
        write_verdicts(workspace, table)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    workspace.put("reviews/mine.parquet", sink.getvalue())
    with pytest.raises(StoreError, match=rf"mine\.parquet: .*{problem}.*move it away") as caught:
        read_verdicts(workspace)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(workspace, verdicts):
    name = write_verdicts(workspace, verdicts({"label_id": "1"}))
    workspace.put(f"reviews/{name}.parquet", b"cut")
    with pytest.raises(StoreError, match=rf"{name}\.parquet is not the file that was written"):
        read_verdicts(workspace)
    workspace.delete(f"reviews/{name}.parquet")
    workspace.put("reviews/mine.parquet", b"PAR1 but not really")
    with pytest.raises(StoreError, match=r"mine\.parquet is no readable Parquet file"):
        read_verdicts(workspace)
    sink = io.BytesIO()
    pq.write_table(pa.table({"label_id": ["1"]}), sink)
    workspace.put("reviews/mine.parquet", sink.getvalue())
    with pytest.raises(StoreError, match=r"mine\.parquet does not have the columns of verdicts"):
        read_verdicts(workspace)


MASKS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))
DIGITS = st.lists(st.integers(48, 111), max_size=30).map(bytes)


@given(MASKS)
def test_every_mask_with_a_pixel_is_one(mask):
    counts = mask_utils.encode(np.asfortranarray(mask))["counts"]
    found = mask_trouble(counts, *mask.shape)
    if mask.any():
        assert not found
        assert "draw it in the size of the image" in mask_trouble(counts, mask.shape[0] + 1, mask.shape[1])
    else:
        assert "has no pixel" in found


@given(st.binary(max_size=30) | DIGITS, st.integers(1, 20), st.integers(1, 20))
def test_what_is_let_through_is_safe_with_pycocotools(counts, height, width):
    if mask_trouble(counts, height, width):
        return
    assert mask_utils.decode({"size": [height, width], "counts": counts}).any()


@given(st.lists(st.none() | st.binary(max_size=12) | DIGITS, max_size=5))
def test_the_quick_look_lets_every_mask_through(masks):
    quick = looks_like_rle(pa.chunked_array([pa.array(masks, pa.binary())])).to_pylist()
    assert all(fine for fine, mask in zip(quick, masks, strict=True) if mask is None or not mask_trouble(mask))


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        (b"", "is no compressed COCO RLE; write the counts that pycocotools"),
        (b"\xff\xfe", "is no compressed COCO RLE"),
        (b"5o", "is no compressed COCO RLE"),  # the last number does not end
        (b"5O", "is no compressed COCO RLE"),  # a run of -1 pixels
        (b"oooooooo1", "is no compressed COCO RLE"),  # more pixels than cocoapi can count
        (b"6230>", ""),
        (b"6231>", "is of 31 pixels, its image of 6 x 5; draw it in the size of the image"),
        (b"n0", "has no pixel; leave rle_counts empty"),
        (b"1" * (MOST_RLE_BYTES + 1), "has 1,048,577 bytes; smooth its edge until it has up to 1,048,576"),
    ],
)
def test_what_is_no_mask(counts, problem):
    assert problem in mask_trouble(counts, 5, 6)
    assert bool(problem) == bool(mask_trouble(counts, 5, 6))
