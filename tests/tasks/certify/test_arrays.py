import numpy as np

from vouch_labels.tasks.labels.arrays import SIGNALS, current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.store.open import open_store


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
