"""The log of verdicts; verdicts on images that moved, and of classes that were renamed."""

import csv
import hashlib
import io
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_utils

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.reviews import MOST_RLE_BYTES, TASKS, VERDICTS, ReviewPlan
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.export.export import reviewed_images
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.import_verdicts import import_files
from vouch_labels.tasks.reviews.moved import MOVED, with_moved_tasks, with_moved_verdicts
from vouch_labels.tasks.reviews.open_tasks import campaign_figures, task_sheet
from vouch_labels.tasks.reviews.plans import read_plans, write_plan
from vouch_labels.tasks.reviews.resolve import missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import looks_like_rle, mask_trouble, read_verdicts, write_verdicts
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_store

NOW = datetime(2026, 3, 5, tzinfo=UTC)


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


# Reviews follow images that move: by content, however they move, and never twice.


def move(folder, key, target):
    """As other tools do: the time of change is new."""
    (folder / target).parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / key, folder / target)
    (folder / key).unlink()


def labels_of(campaign):
    """Key -> ids of its labels, in order."""
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        labels = read_run_labels(workspace, "main", ledger, current_of(workspace, "main"))
    found = {key: [] for key in labels.keys.to_pylist()}
    for label_id, image in zip(labels.label_ids.to_pylist(), labels.image_index, strict=True):
        found[labels.keys[image].as_py()].append(label_id)
    return found


def reviewed(campaign):
    """Key -> what people made of its labels."""
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        images = list(reviewed_images(workspace, "main", ledger, current_of(workspace, "main")))
    return {image.key: [label.reviewed for label in image.labels] for image in images}


def plan_of(tasks):
    about = {"run": "main", "created": "2026-03-04T00:00:00+00:00", "inputs": {}, "precision": 0.9, "confidence": 0.9,
             "gate": "accepted", "seed": 0, "fit_share": 0, "number": 1, "counts": {}, "seconds": 0,
             "tasks_sha256": ""}  # fmt: skip
    filled = [
        dict.fromkeys(TASKS.names) | {"place": place, "purpose": "certify", "seconds": 1.6, **task}
        for place, task in enumerate(tasks)
    ]
    return ReviewPlan.model_validate(about), pa.Table.from_pylist(filled, schema=TASKS)


@pytest.fixture
def campaign(tmp_path, make_images, make_campaign, label, verdicts):
    """Six images; all labels of 000.png are answered, and the image is checked; a plan asks about both."""
    make_images(tmp_path / "images", 6)
    found = make_campaign()
    label(found)
    workspace, ids = open_store(found.workspace), labels_of(found)["000.png"]
    answers = [{"label_id": name, "key": None, "verdict": "not_an_object", "seconds": 2.0} for name in ids]
    about_image = {"key": "000.png", "verdict": "checked", "seconds": 3.0}
    drawn = {"key": "000.png", "verdict": "missed", "class_name": "dog", "box": (1, 1, 9, 9)}
    write_verdicts(workspace, verdicts(*answers, about_image, drawn))
    write_plan(workspace, "main", *plan_of([{"label_id": ids[0], "key": "000.png"}, {"key": "000.png"}]))
    return found


def test_answers_tasks_and_drawn_boxes_follow_a_moved_image(tmp_path, campaign, label):
    before, time = reviewed(campaign)["000.png"], campaign_figures(campaign).seconds
    assert set(before) == {"rejected", "added"}
    move(tmp_path / "images", "000.png", "done/a.png")
    summary, _ = label(campaign)
    assert summary.moved_images == 1
    assert reviewed(campaign)["done/a.png"] == before
    workspace, ids = open_store(campaign.workspace), labels_of(campaign)["done/a.png"]
    answers = resolve(read_verdicts(workspace))
    assert (answers.places(ids) >= 0).all()
    ((_, tasks),) = read_plans(workspace, "main")
    assert tasks["label_id"].to_pylist() == [ids[0], None]
    assert tasks["key"].to_pylist() == ["done/a.png"] * 2
    figures = campaign_figures(campaign)
    assert figures.labels == len(ids)
    assert figures.seconds == time, "counted once"


def test_reviews_follow_an_image_that_moves_twice_and_back(tmp_path, campaign, label):
    before, ids = reviewed(campaign)["000.png"], labels_of(campaign)["000.png"]
    for old, new in (("000.png", "b.png"), ("b.png", "c.png"), ("c.png", "000.png")):
        move(tmp_path / "images", old, new)
        label(campaign)
        assert reviewed(campaign)[new] == before
    assert labels_of(campaign)["000.png"] == ids
    ((_, tasks),) = read_plans(open_store(campaign.workspace), "main")
    assert set(tasks["key"].to_pylist()) == {"000.png"}


def test_a_move_is_noted_once_and_by_a_later_run_where_shards_are_left(tmp_path, campaign, label, monkeypatch):
    move(tmp_path / "images", "000.png", "b.png")
    with monkeypatch.context() as patch:
        patch.setattr("vouch_labels.tasks.run.note_moves", lambda *rest: 0)
        assert label(campaign)[0].moved_images == 0
    assert set(reviewed(campaign)["b.png"]) == {""}
    assert label(campaign)[0].moved_images == 1
    assert set(reviewed(campaign)["b.png"]) == {"rejected", "added"}
    assert label(campaign)[0].moved_images == 0


def test_a_copy_has_no_reviews_until_the_original_goes(tmp_path, campaign, label):
    before = reviewed(campaign)["000.png"]
    shutil.copyfile(tmp_path / "images" / "000.png", tmp_path / "images" / "copy.png")
    label(campaign)
    assert set(reviewed(campaign)["copy.png"]) == {""}
    (tmp_path / "images" / "000.png").unlink()
    label(campaign)
    assert reviewed(campaign)["copy.png"] == before


def test_each_of_two_equal_images_keeps_its_own_reviews(tmp_path, campaign, label):
    folder = tmp_path / "images"
    shutil.copyfile(folder / "000.png", folder / "twin.png")
    label(campaign)
    move(folder, "000.png", "x.png")
    move(folder, "twin.png", "y.png")
    assert label(campaign)[0].moved_images == 2
    states = reviewed(campaign)
    assert {tuple(sorted(set(states[key]))) for key in ("x.png", "y.png")} == {("added", "rejected"), ("",)}


def test_an_image_that_is_only_deleted_takes_nothing_along(tmp_path, campaign, label):
    (tmp_path / "images" / "000.png").unlink()
    assert label(campaign)[0].moved_images == 0
    assert {state for states in reviewed(campaign).values() for state in states} == {""}


def test_moves_follow_new_settings(tmp_path, campaign, make_campaign, label):
    """What was reviewed under other classes moves as well: its labels have the ids of their boxes."""
    before = reviewed(campaign)["000.png"]
    move(tmp_path / "images", "000.png", "b.png")
    added = make_campaign(
        classes=["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
        routing={"accept": {"detector_score": 0.1}},
    )
    label(added)
    assert reviewed(added)["b.png"] == before


def test_damaged_records_are_one_line(tmp_path, campaign, label):
    move(tmp_path / "images", "000.png", "b.png")
    label(campaign)
    (tmp_path / "workspace/reviews/moved/main/000002.parquet").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="is damaged; restore it"):
        read_verdicts(open_store(campaign.workspace))


def moved(**changes):
    row = {"label_id": "a", "key": "k", "new_label_id": "b", "new_key": "n", "plans": 2, "moved_at": NOW}
    rows = [row | changes, row | {"label_id": None, "new_label_id": None} | changes]
    return pa.Table.from_pylist(rows, schema=MOVED)


def test_what_is_said_of_an_old_key_after_the_move_stays_there(verdicts):
    late = (NOW - datetime(2026, 3, 4, tzinfo=UTC) + timedelta(minutes=1)).total_seconds() / 60
    rows = verdicts({"key": "k", "verdict": "checked", "at": late}, {"key": "other", "verdict": "checked"})
    assert with_moved_verdicts(rows, [moved()]).equals(rows)
    early = with_moved_verdicts(verdicts({"key": "k", "verdict": "checked"}), [moved()])
    assert set(missed_and_checked(early).checked["key"].to_pylist()) == {"k", "n"}


def test_labels_follow_at_any_time_and_keep_what_was_said(verdicts):
    late = (NOW - datetime(2026, 3, 4, tzinfo=UTC) + timedelta(minutes=1)).total_seconds() / 60
    said = {"verdict": "wrong_class", "class_name": "dog", "seconds": 4.0, "at": late}
    rows = with_moved_verdicts(verdicts({"label_id": "a", "key": "k", **said}, {"label_id": "z"}), [moved()])
    assert rows.num_rows == 3
    copy = rows.to_pylist()[-1]
    assert (copy["label_id"], copy["key"], copy["class_name"], copy["seconds"]) == ("b", "n", "dog", None)


def test_later_plans_mean_the_keys_of_their_time():
    _, tasks = plan_of([{"label_id": "a", "key": "k"}, {"label_id": "honeypot", "key": "k"}, {"key": "k"}])
    assert with_moved_tasks(tasks, 3, [moved()]).equals(tasks)
    then = with_moved_tasks(tasks, 2, [moved()])
    assert then["label_id"].to_pylist() == ["b", "honeypot", None]
    assert then["key"].to_pylist() == ["n"] * 3
    assert then.schema == TASKS


# Verdict files and tasks after a class was renamed: people see the new name, and may write either.


def test_tasks_show_the_new_name_and_files_may_have_either(tmp_path):
    draw_images(tmp_path, 40)
    label(write_campaign(tmp_path, classes=["cat", "dog"]))
    campaign = write_campaign(tmp_path, classes=["cat", {"name": "hound", "was": "dog"}])
    label(campaign)
    plan_reviews(campaign, ReviewRequest(minutes=5))
    rows = task_sheet(campaign).to_pylist()
    assert {row["shown_class"] for row in rows} == {"cat", "hound"}
    cats = [row["label_id"] for row in rows if row["shown_class"] == "cat"][:2]
    hounds = [row["label_id"] for row in rows if row["shown_class"] == "hound"][:1]
    path = tmp_path / "answers.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["label_id", "verdict", "class_name"])
        out.writerows([[cats[0], "wrong_class", "hound"], [cats[1], "wrong_class", "dog"]])
        out.writerow([hounds[0], "correct", "hound"])
    (outcome,) = import_files(campaign, [path], "ann")
    assert (outcome.imported, outcome.unknown_labels) == (3, 0)
    verdicts = read_verdicts(open_store(campaign.workspace))
    assert sorted(verdicts["class_name"].drop_null().to_pylist()) == ["dog", "dog"]
    assert campaign_figures(campaign).classes["hound"] == {"correct": 1}
