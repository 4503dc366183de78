"""Labels as arrays, image by image (the same labels as the export streams, with their signals) and all at once."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vouch_labels.tasks.labels.arrays import SIGNALS, current_of, read_run_labels
from vouch_labels.tasks.labels.read import SIGNAL_STAGES, image_sizes, label_arrays, labelled_images
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.open import open_store


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
