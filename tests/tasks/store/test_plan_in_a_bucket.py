"""Planning from a bucket into a bucket gives the shards that the same images in folders give."""

from pathlib import Path

import pytest

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import WorkspaceBusyError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.plan.ledger import Ledger, read_plan
from vouch_labels.tasks.plan.plan import list_source, plan
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.store import Store

KEYS = ["z.jpg", "é/1.png", "a b/2.JPG", "a b/notes.txt", "a.jpg", "a/1.jpg", "a-1.jpg"]


def planned(source: Store, workspace: Store) -> list[list[ImageRef]]:
    campaign = Source.model_validate({"uri": source.uri})
    with WorkspaceLock(workspace, "r"), Ledger.load(workspace, "r") as ledger:
        plan(list_source(campaign, source), workspace, "r", ledger, 2)
        return [
            [ref for ref in read_plan(workspace, "r", shard.id) if ref.key in ledger.keys_of(shard.id)]
            for shard in ledger.shards()
        ]


def test_a_bucket_is_planned_as_a_folder_is(s3_store: S3Store, tmp_path: Path) -> None:
    images = S3Store(s3_store.bucket, "images", s3_store.options)
    folder, workspace = LocalStore(tmp_path / "images"), LocalStore(tmp_path / "workspace")
    for store in (images, folder):
        for key in KEYS:
            store.put(key, key.encode())
    shapes = [[(ref.key, ref.size) for ref in shard] for shard in planned(images, s3_store)]
    assert shapes == [[(ref.key, ref.size) for ref in shard] for shard in planned(folder, workspace)]
    for store in (images, folder):
        store.put("a.jpg", b"changed")
        store.delete("z.jpg")
    shapes = [[(ref.key, ref.size) for ref in shard] for shard in planned(images, s3_store)]
    assert shapes == [[(ref.key, ref.size) for ref in shard] for shard in planned(folder, workspace)]
    assert [key for shard in shapes for key, _ in shard] == ["a b/2.JPG", "a-1.jpg", "a/1.jpg", "é/1.png", "a.jpg"]
    kinds = sorted(info.key.rpartition("/")[2].partition("-")[0] for info in s3_store.list("runs/r/plan/"))
    assert kinds[:3] == ["000001.json", "000002", "000002.json"]


def test_a_planner_that_comes_second_gives_way(s3_store: S3Store) -> None:
    one, two = [ImageRef("a", "1", 1)], [ImageRef("b", "1", 1)]
    with Ledger.load(s3_store, "r") as first, Ledger.load(s3_store, "r") as second:
        assert plan(one, s3_store, "r", first, 1) is not None
        with pytest.raises(WorkspaceBusyError):
            plan(two, s3_store, "r", second, 1)
