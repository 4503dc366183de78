"""The one reader of shards, and the labels as arrays, image by image and all at once."""

import ast
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.tables import STAGES
from vouch_labels.tasks.arrow import boxes_of
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.labels.read import SIGNAL_STAGES, image_sizes, label_arrays, labelled_images
from vouch_labels.tasks.labels.scan import LABEL_TABLES, scan, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import label_numbers
from vouch_labels.tasks.shard.files import read_current, read_part
from vouch_labels.tasks.shard.numbers import SIGNALS
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_store

ROOT = Path(__file__).parents[3]
COLUMNS = list(dict.fromkeys(name for stage in LABEL_TABLES for name in STAGES[stage].names))


@pytest.fixture
def run(tmp_path, make_images, make_campaign, label):
    """The arguments of a reader, for a run of three shards: the first has lost an image, one image failed."""
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    label(campaign)
    (tmp_path / "images" / "001.png").unlink()
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    label(campaign)
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        yield workspace, "main", ledger, read_current(workspace, "main").fingerprint


@pytest.fixture
def opened(monkeypatch):
    """The stages whose tables are opened, with the columns that are read of them."""
    found = []

    def spy(store, part, stage, columns=None):
        found.append((stage, set(columns)))
        return read_part(store, part, stage, columns)

    monkeypatch.setattr("vouch_labels.tasks.labels.scan.read_part", spy)
    return found


def whole_tables(run):
    """Every label as a row, joined by hand from the whole tables, of the images that are there."""
    for shard in shards(*run):
        tables = [read_part(run[0], shard.marker.parts[stage], stage).to_pylist() for stage in LABEL_TABLES]
        for rows in zip(*tables, strict=True):
            assert len({row["label_id"] for row in rows}) == 1
            joined = rows[0] | rows[1] | rows[2] | rows[3]
            if joined["key"] != "001.png":
                yield joined


def test_a_label_is_a_row_with_columns_of_every_table(run):
    tables = list(scan(*run, columns=COLUMNS))
    assert len(tables) > 1
    assert pa.concat_tables(tables).to_pylist() == list(whole_tables(run))
    fields = {field.name: field for stage in reversed(LABEL_TABLES) for field in STAGES[stage]}
    assert all({field.name: field.type for field in table.schema} == {n: fields[n].type for n in COLUMNS}
               for table in tables)  # fmt: skip


def test_columns_come_as_asked_for_without_those_read_to_choose_rows(run):
    for table in scan(*run, columns=["decision", "label_id"]):
        assert table.column_names == ["decision", "label_id"]


def test_only_tables_with_wanted_columns_are_opened(run, opened):
    shard = list(shards(*run))[-1]
    assert shard.whole
    shard.labels(["label_id", "decision"])
    assert opened == [("route", {"label_id", "decision"})]
    opened.clear()
    shard.labels(["label_id"])
    assert opened == [("detect", {"label_id"})]


def test_labels_sought_by_any_of_their_values(run, opened):
    every = list(whole_tables(run))
    ids, key = [every[0]["label_id"], "unknown"], every[-1]["key"]
    sought = {"label_id": pa.array(ids), "key": pa.array([key])}
    found = pa.concat_tables(scan(*run, columns=["label_id", "sam_iou"], sought=sought))
    expected = [row for row in every if row["label_id"] in ids or row["key"] == key]
    assert found.to_pylist() == [{"label_id": row["label_id"], "sam_iou": row["sam_iou"]} for row in expected]
    opened.clear()
    nothing = list(scan(*run, columns=["label_id", "sam_iou"], sought={"key": pa.array(["unknown"])}))
    assert sum(table.num_rows for table in nothing) == 0
    assert {stage for stage, _ in opened} == {"detect"}
    assert all(table.schema.equals(found.schema) for table in nothing)


def test_labels_of_images_that_are_gone_where_asked_for(run):
    here = {row["label_id"] for row in whole_tables(run)}
    every = pa.concat_tables(scan(*run, columns=["label_id", "key"], gone=True)).to_pylist()
    assert {row["label_id"] for row in every if row["key"] != "001.png"} == here
    assert any(row["key"] == "001.png" for row in every)


def test_images_by_outcome_and_key(run):
    def keys(**options):
        return [key for shard in shards(*run) for key in shard.images(["key"], **options)["key"].to_pylist()]

    done = ["000.png", "002.png", "003.png", "004.png", "005.png"]
    assert keys() == done
    assert keys(outcome="failed") == ["broken.png"]
    assert keys(outcome=None) == [*done, "broken.png"]
    assert keys(sought={"key": pa.array(["001.png", "004.png"])}) == ["004.png"]


def test_presence_of_images_that_are_there(run):
    rows = [row for shard in shards(*run) for row in shard.presence().to_pylist()]
    assert rows
    assert "001.png" not in {row["key"] for row in rows}
    (first, *_) = shards(*run)
    parts = {stage: part for stage, part in first.marker.parts.items() if stage != "presence"}
    assert replace(first, marker=first.marker.model_copy(update={"parts": parts})).presence() is None


@pytest.mark.parametrize("schema", ["without a column", "with another type"])
def test_a_wanted_column_of_another_schema_is_refused_and_the_others_are_read(tmp_path, run, schema):
    (shard, *_) = shards(*run)
    before = shard.labels(["clip_margin"])
    part = shard.marker.parts["score"]
    table = pq.read_table(tmp_path / "workspace" / part.name)
    place = table.column_names.index("clip_margin_wide")
    if schema == "without a column":
        table = table.remove_column(place)
    else:
        table = table.set_column(place, "clip_margin_wide", table["clip_margin_wide"].cast(pa.float64()))
    pq.write_table(table, tmp_path / "workspace" / part.name)
    digest = hashlib.sha256((tmp_path / "workspace" / part.name).read_bytes()).hexdigest()
    parts = shard.marker.parts | {"score": part.model_copy(update={"sha256": digest})}
    changed = replace(shard, marker=shard.marker.model_copy(update={"parts": parts}))
    with pytest.raises(StoreError, match=r"score-\w+\.parquet is of another version of Vouch; start another run$"):
        changed.labels(["clip_margin", "clip_margin_wide"])
    assert changed.labels(["clip_margin"]).equals(before)


def test_tables_of_different_lengths_are_refused(run):
    (shard, *_) = shards(*run)
    part = shard.marker.parts["score"]
    parts = shard.marker.parts | {"score": part.model_copy(update={"rows": part.rows + 1})}
    changed = replace(shard, marker=shard.marker.model_copy(update={"parts": parts}))
    with pytest.raises(StoreError, match="differ in length"):
        changed.labels(["key", "clip_margin"])


def test_no_markers_no_tables(tmp_path):
    workspace = LocalStore(tmp_path)
    with Ledger.load(workspace, "main") as ledger:
        assert list(scan(workspace, "main", ledger, "0", ["label_id"])) == []


def test_nobody_else_opens_the_tables_of_shards():
    """They are opened where they are written and in the one reader, and nowhere else."""
    allowed = {ROOT / "tasks/labels/scan.py", *(ROOT / "tasks/shard").glob("*.py")}
    sources = {path for folder in ("flows", "tasks", "review_ui", "schemas", "starter")
               for path in (ROOT / folder).rglob("*.py")} - allowed  # fmt: skip
    assert len(sources) > 100
    found = {
        f"{path.relative_to(ROOT)} uses {name}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        for name in [getattr(node, "name", None) or getattr(node, "attr", None) or getattr(node, "id", None)]
        if name == "read_part"
    }
    assert found == set()


# Labels as arrays, image by image (the same labels as the export streams, with their signals) and all at once.


def test_signals_are_numbers_that_say_something_of_a_label():
    assert {"detector_score", "sam_iou", "clip_margin", "p_correct", "relative_area"} <= SIGNAL_STAGES.keys()
    assert not {"x0", "mask_y1", "label_id", "class_name", "rle_counts", "decision"} & SIGNAL_STAGES.keys()


def test_as_the_export_streams_them(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    label(campaign)
    # One image leaves, one comes: the first shard holds less than its tables.
    (tmp_path / "images" / "001.png").unlink()
    (tmp_path / "images" / "x.png").touch()
    label(campaign)
    workspace = open_store(campaign.workspace)
    current = read_current(workspace, "main")
    names = ("detector_score", "p_correct", "mask_area", "clip_margin", "border_sides")
    with Ledger.load(workspace, "main") as ledger:
        expected = list(labelled_images(workspace, "main", ledger, current.fingerprint))
        found = list(label_arrays(workspace, "main", ledger, current.fingerprint, names))
    assert [image.key for image in found] == [image.key for image in expected]
    assert len(found) == 5
    for image, export in zip(found, expected, strict=True):
        assert (image.width, image.height) == (export.width, export.height)
        assert image.class_name == [one.class_name for one in export.labels]
        assert image.accepted.tolist() == [one.decision == "accept" for one in export.labels]
        assert image.rle_counts == [one.rle_counts for one in export.labels]
        np.testing.assert_array_equal(image.xyxy, np.array([one.xyxy for one in export.labels]).reshape(-1, 4))
        np.testing.assert_array_equal(image.signals["detector_score"], [one.score for one in export.labels])
        np.testing.assert_array_equal(image.signals["mask_area"], [one.area for one in export.labels])
        assert np.isnan(image.signals["p_correct"]).all()
        assert {values.dtype for values in image.signals.values()} == {np.dtype(np.float32)}
    margins = np.concatenate([image.signals["clip_margin"] for image in found])
    parts = sorted((tmp_path / "workspace").rglob("score-*.parquet"))
    written = np.concatenate([pq.read_table(part)["clip_margin"].to_numpy() for part in parts])
    assert len(margins) > 0
    assert set(margins.tolist()) <= set(written.tolist())


@pytest.fixture
def sizes(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    campaign = make_campaign()
    label(campaign)
    workspace = open_store(campaign.workspace)
    fingerprint = current_of(workspace, "main").fingerprint

    def look(*keys):
        with Ledger.load(workspace, "main") as ledger:
            return image_sizes(workspace, "main", ledger, fingerprint, keys)

    return look


def test_images_that_were_labelled(sizes):
    assert sizes("000.png", "005.png", "gone.png", "broken.png") == {"000.png": (96, 64), "005.png": (96, 64)}


def test_nothing_to_look_up(sizes):
    assert sizes() == {}


def read(campaign):
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, campaign.run.name) as ledger:
        return read_run_labels(workspace, campaign.run.name, ledger, current_of(workspace, campaign.run.name))


def test_all_shards_in_one(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 7)
    campaign = make_campaign(run={"shard_size": 3})
    summary, _ = label(campaign)
    labels = read(campaign)
    assert labels.count == summary.labels > 0
    assert labels.keys.to_pylist() == [f"{number:03d}.png" for number in range(7)]
    assert labels.signals.shape == (labels.count, len(SIGNALS))
    assert (np.diff(labels.image_index) >= 0).all()
    assert labels.accepted.sum() == summary.accepted
    assert labels.places([labels.label_ids[2].as_py(), "unknown"]).tolist() == [2, -1]
    side = labels.fit_side(0.5, 1)
    for image in range(7):
        assert len(set(side[labels.image_index == image].tolist())) <= 1


def test_samples_are_drawn_in_an_order_that_new_images_leave(tmp_path, make_images, make_campaign, label):
    """Though their shards come first or last, and whatever lies between them by key."""
    make_images(tmp_path / "images", 9)
    for number in (0, 3, 4, 8):
        (tmp_path / "images" / f"{number:03d}.png").rename(tmp_path / f"{number:03d}.png")
    campaign = make_campaign(run={"shard_size": 2})
    label(campaign)
    before = read(campaign)
    for number in (0, 3, 4, 8):
        (tmp_path / f"{number:03d}.png").rename(tmp_path / "images" / f"{number:03d}.png")
    label(campaign)
    labels = read(campaign)
    assert labels.count > before.count > 5
    order = labels.label_ids.take(pa.array(labels.draw_order)).to_pylist()
    old = before.label_ids.take(pa.array(before.draw_order)).to_pylist()
    assert sorted(order) == sorted(labels.label_ids.to_pylist())
    assert [one for one in order if one in set(old)] == old
    keys = [labels.keys[image].as_py() for image in labels.image_index[labels.draw_order].tolist()]
    assert keys == sorted(keys)


def test_images_that_left_are_left_out(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 4)
    campaign = make_campaign()
    label(campaign)
    (tmp_path / "images" / "002.png").unlink()
    label(campaign)
    assert "002.png" not in read(campaign).keys.to_pylist()


def test_a_run_without_a_label(make_images, make_campaign, label, tmp_path):
    make_images(tmp_path / "images", 2)
    campaign = make_campaign(
        models={"device": "cpu"}
        | {name: {"backend": "fake"} for name in ("segmenter", "scorer")}
        | {"detector": {"backend": "fake", "min_score": 1}}
    )
    label(campaign)
    empty = read(campaign)
    assert (empty.count, len(empty.keys)) == (0, 2)
    assert empty.signals.shape == (0, len(SIGNALS))


FIELDS = ("label_ids", "class_index", "image_index", "boxes", "signals", "p_correct", "accepted", "keys", "contents")


def without_numbers(workspace):
    """The markers as they were before they named the numbers of their labels."""
    for info in list(workspace.list("runs/main/done/")):
        marker = json.loads(workspace.get(info.key).data)
        assert marker.pop("numbers")
        workspace.put(info.key, json.dumps(marker).encode())


def test_numbers_are_those_of_the_tables(run):
    """Of shards that are whole and of one that has lost an image, with and without a file of numbers."""
    workspace, name, ledger, _ = run
    current = current_of(workspace, name)
    first = read_run_labels(workspace, name, ledger, current)
    rows = np.array([first.count - 1, 0, 2, 2])
    calibrator = Calibrator(SIGNALS, (0.5,) * 15, (0.3,) * 15, (1.0,) * 15, (0.0,) * 15, 0.0, {})
    assert first.columns(rows, ["label_id"])["label_id"].to_pylist() == [first.label_ids[row].as_py() for row in rows]
    assert_array_equal(first.signals_of(rows), first.signals[rows])
    assert_array_equal(first.signal("clip_margin"), first.signals[:, SIGNALS.index("clip_margin")])
    passed = dict(first.each_signal())
    assert tuple(passed) == SIGNALS
    assert_array_equal(np.stack(list(passed.values()), axis=1), first.signals)
    whole = calibrator.probabilities(first.signals, first.class_index, first.class_names)
    assert_array_equal(first.probabilities(calibrator), whole)
    table = first.table_of(rows)
    assert table["key"].to_pylist() == [first.keys[int(first.image_index[row])].as_py() for row in rows]
    assert (boxes_of(table) == first.boxes[rows]).all()
    without_numbers(workspace)
    second = read_run_labels(workspace, name, ledger, current)
    for field in FIELDS:
        assert_array_equal(np.asarray(getattr(first, field)), np.asarray(getattr(second, field)), field)
    assert (first.numbers == label_numbers(second.label_ids)).all()
    assert_array_equal(second.signals_of(rows), first.signals_of(rows))


def test_numbers_that_have_gone_are_made_again_and_damaged_ones_are_named(run):
    workspace, name, ledger, _ = run
    current = current_of(workspace, name)
    before = read_run_labels(workspace, name, ledger, current).signals
    (*_, last) = shards(*run)
    key = last.marker.numbers.name
    data = workspace.get(key).data
    workspace.put(key, data[:-1] + b"x")
    with pytest.raises(StoreError, match=r"numbers-\w+\.arrow is not the file that was written; delete it"):
        read_run_labels(workspace, name, ledger, current)
    workspace.delete(key)
    assert_array_equal(read_run_labels(workspace, name, ledger, current).signals, before)
