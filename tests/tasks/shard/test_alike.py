"""Images whose content was labelled before: copied, touched, moved, twice in a source, come back."""

import json
import shutil

import pytest

from vouch_labels.schemas.tables import STAGES
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.plan.alike import MOST
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.files import read_part
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def seen(monkeypatch):
    """Images that the detector has looked at."""
    images, look = [], Detect.look

    def looked(self, batch, ask):
        images.extend(batch)
        return look(self, batch, ask)

    monkeypatch.setattr(Detect, "look", looked)
    return images


def rows(campaign, without=()):
    """Stage -> all rows of the shards that hold images now, in the order of keys."""
    workspace = open_store(campaign.workspace)
    found = {stage: [] for stage in STAGES}
    with CampaignRun(campaign) as run:
        current, ledger = run._current, run._ledger
        for shard in ledger.shards():
            held = ledger.keys_of(shard.id)
            marker = process_shard(shard.id, run.settings)
            assert marker.fingerprint == current.fingerprint
            tables = {stage: read_part(workspace, part, stage).to_pylist() for stage, part in marker.parts.items()}
            keys = [row["key"] for row in tables["detect"]]
            for stage, table in tables.items():
                of = [row["key"] for row in table] if "key" in STAGES[stage].names else keys
                found[stage] += [
                    (key, {name: value for name, value in row.items() if name not in without})
                    for key, row in zip(of, table, strict=True)
                    if key in held
                ]
    return {stage: sorted(pairs, key=lambda pair: pair[0]) for stage, pairs in found.items()}


def fresh(make_campaign, label, tmp_path, **sections):
    campaign = make_campaign(workspace=str(tmp_path / "fresh"), **sections)
    label(campaign)
    return rows(campaign)


def copied(folder, target):
    shutil.copytree(folder, target, copy_function=shutil.copyfile)


def test_a_copy_with_new_times_is_not_labelled_again(tmp_path, make_images, make_campaign, label, seen):
    make_images(tmp_path / "images", 9)
    label(make_campaign())
    copied(tmp_path / "images", tmp_path / "copy")
    del seen[:]
    campaign = make_campaign(source=str(tmp_path / "copy"))
    summary, markers = label(campaign)
    assert seen == []
    assert (len(markers), summary.new_images, summary.known_images, summary.moved_images) == (3, 9, 9, 0)
    assert rows(campaign) == fresh(make_campaign, label, tmp_path, source=str(tmp_path / "copy"))


def test_moved_images_have_the_tables_of_a_run_from_nothing(tmp_path, make_images, make_campaign, label, seen):
    keys = make_images(tmp_path / "images", 9)
    campaign = make_campaign()
    label(campaign)
    (tmp_path / "images" / "sub").mkdir()
    for key in keys[3:]:
        shutil.copyfile(tmp_path / "images" / key, tmp_path / "images" / "sub" / f"x{key}")
        (tmp_path / "images" / key).unlink()
    del seen[:]
    summary, _ = label(campaign, accept_changes=True)
    assert seen == []
    assert (summary.images, summary.moved_images) == (9, 6)
    assert rows(campaign) == fresh(make_campaign, label, tmp_path)


def test_one_content_twice_in_a_shard_is_looked_at_once(tmp_path, make_images, make_campaign, label, seen):
    make_images(tmp_path / "images", 3)
    shutil.copyfile(tmp_path / "images" / "000.png", tmp_path / "images" / "001a.png")
    shutil.copyfile(tmp_path / "images" / "000.png", tmp_path / "images" / "zzz.png")
    campaign = make_campaign(run={"shard_size": 10})
    summary, (marker,) = label(campaign)
    assert len(seen) == 3
    assert (summary.images, summary.done, summary.known_images) == (5, 5, 2)
    tables = rows(campaign, without=("key", "label_id", "etag"))
    for stage, pairs in tables.items():
        of = {key: [row for other, row in pairs if other == key] for key in ("000.png", "001a.png", "zzz.png")}
        assert of["000.png"] == of["001a.png"] == of["zzz.png"], stage
    ids = [row["label_id"] for _, row in rows(campaign)["detect"]]
    assert len(set(ids)) == len(ids) == summary.labels
    keys = read_part(open_store(campaign.workspace), marker.parts["images"], "images")["key"].to_pylist()
    assert keys == ["000.png", "001.png", "001a.png", "002.png", "zzz.png"]
    exported = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    assert len(exported["annotations"]) == summary.labels


def test_an_image_that_comes_back_is_known(tmp_path, make_images, make_campaign, label, seen):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    label(campaign)
    shutil.move(tmp_path / "images" / "005.png", tmp_path / "005.png")
    label(campaign)
    shutil.copyfile(tmp_path / "005.png", tmp_path / "images" / "005.png")
    del seen[:]
    summary, _ = label(campaign)
    assert seen == []
    assert (summary.images, summary.known_images, summary.moved_images) == (6, 1, 0)


def test_other_content_under_an_old_name_and_size_is_labelled(tmp_path, make_campaign, label, make_images, seen):
    make_images(tmp_path / "images", 2)
    label(make_campaign())
    data = bytearray((tmp_path / "images" / "000.png").read_bytes())
    other = bytearray((tmp_path / "images" / "001.png").read_bytes())
    size = max(len(data), len(other))
    for name, content in (("000.png", other), ("001.png", data)):
        (tmp_path / "images" / name).write_bytes(bytes(content).ljust(size, b"\0") + b"\0")
    campaign = make_campaign()
    del seen[:]
    label(campaign)
    assert len(seen) == 2, "padded, so neither content is known"
    assert rows(campaign) == fresh(make_campaign, label, tmp_path)


def test_other_models_look_again(tmp_path, make_images, make_campaign, label, seen):
    make_images(tmp_path / "images", 4)
    label(make_campaign())
    copied(tmp_path / "images", tmp_path / "copy")
    del seen[:]
    models = {"device": "cpu", "detector": {"backend": "fake", "min_score": 0.4}}
    models |= {"segmenter": {"backend": "fake"}, "scorer": {"backend": "fake"}}
    summary, _ = label(make_campaign(source=str(tmp_path / "copy"), models=models))
    assert (len(seen), summary.known_images) == (4, 0)


@pytest.mark.parametrize("spoilt", ["images", "detect", "score"])
def test_damaged_tables_of_another_shard_do_no_harm(tmp_path, make_images, make_campaign, label, spoilt):
    make_images(tmp_path / "images", 4)
    _, markers = label(make_campaign())
    for marker in markers:
        (tmp_path / "workspace" / marker.parts[spoilt].name).write_bytes(b"damaged")
    copied(tmp_path / "images", tmp_path / "copy")
    campaign = make_campaign(source=str(tmp_path / "copy"))
    with CampaignRun(campaign) as run:
        run.plan()
        made = [process_shard(shard.id, run.settings) for shard in run.pending()]
    assert sum(marker.counts.done for marker in made) == 4


def test_a_size_that_many_shards_have_says_nothing(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 2)
    shards = MOST + 2
    for number in range(shards):
        (tmp_path / "images" / f"{number}.bmp").write_bytes(b"BM" + bytes([number]) * 60)
    campaign = make_campaign(run={"shard_size": 1})
    label(campaign)
    for number in range(shards):
        (tmp_path / "images" / f"{number}.bmp").unlink()
    (tmp_path / "images" / "new.bmp").write_bytes(b"BM" + bytes([250]) * 60)
    label(campaign, accept_changes=True)
    with Ledger.load(open_store(campaign.workspace), "main") as ledger:
        assert len(ledger.shards()) == 3
    assert not (tmp_path / "workspace/runs/main/alike").exists()
