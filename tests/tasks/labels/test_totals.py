"""Sums of a run: the same whether its markers are read or what was kept of them."""

import pytest

from vouch_labels.tasks.labels.scan import shards
from vouch_labels.tasks.labels.totals import add_up
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.files import marker_key, read_current
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def summed(monkeypatch):
    """Add a campaign's run up, and say how many markers were read for it."""
    read = []

    def counted(*args):
        for shard in shards(*args):
            read.append(shard.marker.shard)
            yield shard

    monkeypatch.setattr("vouch_labels.tasks.labels.totals.shards", counted)

    def add(campaign, **how):
        read.clear()
        workspace, name = open_store(campaign.workspace), campaign.run.name
        with Ledger.load(workspace, name) as ledger:
            return add_up(workspace, name, ledger, read_current(workspace, name).fingerprint, **how), len(read)

    return add


def test_what_a_run_has_summed_is_not_read_again(tmp_path, make_images, make_campaign, label, summed):
    make_images(tmp_path / "images", 12)
    (tmp_path / "images/bad.png").write_bytes(b"no image")
    campaign = make_campaign(run={"shard_size": 2})
    label(campaign)
    first, many = summed(campaign, keep=True)
    assert (first.images, first.done, first.failed, many) == (13, 12, 1, 7)
    assert summed(campaign) == (first, 0)
    # A marker that is gone, and one that comes back.
    workspace = open_store(campaign.workspace)
    fingerprint = read_current(workspace, "main").fingerprint
    with Ledger.load(workspace, "main") as ledger:
        gone = ledger.shards()[0].id
    kept = workspace.get(marker_key("main", gone, fingerprint)).data
    workspace.delete(marker_key("main", gone, fingerprint))
    without, _ = summed(campaign)
    assert (without.done, without.shards_done, without.pending) == (10, 6, 2)
    workspace.put(marker_key("main", gone, fingerprint), kept)
    assert summed(campaign) == (first, 0)


def test_images_that_come_or_leave_are_seen(tmp_path, make_images, make_campaign, label, summed):
    make_images(tmp_path / "images", 12)
    campaign = make_campaign(run={"shard_size": 4})
    label(campaign)
    summed(campaign, keep=True)
    (tmp_path / "images/003.png").unlink()
    make_images(tmp_path / "images", 3, start=20)
    with CampaignRun(campaign) as run:
        run.plan()
    planned, _ = summed(campaign)
    assert (planned.images, planned.done, planned.pending) == (14, 11, 3)
    label(campaign)
    after, _ = summed(campaign)
    assert (after.images, after.done, after.shards_done) == (14, 14, 4)
    assert after == summed(campaign, keep=True)[0]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"parts": {"00": 1}}', b"\xff"])
def test_damaged_sums_are_passed_over(tmp_path, make_images, make_campaign, label, summed, content):
    make_images(tmp_path / "images", 3)
    campaign = make_campaign()
    label(campaign)
    first, _ = summed(campaign, keep=True)
    [path] = (tmp_path / "workspace/runs/main/sums").iterdir()
    path.write_bytes(content)
    assert summed(campaign) == (first, 1)
