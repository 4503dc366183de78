"""The format of a workspace in any store, also where several processes use it first at once."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from vouch_labels.schemas.campaign import Workspace
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.run import CampaignRun, export_campaign
from vouch_labels.tasks.status import read_status
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import FORMAT, FORMAT_FILE, check_format, open_workspace, write_format


def test_it_is_written_once(store):
    assert not check_format(store)
    write_format(store)
    first = store.stat(FORMAT_FILE)
    write_format(store)
    assert store.stat(FORMAT_FILE) == first
    assert check_format(store)
    assert json.loads(store.get(FORMAT_FILE).data) == {"format": FORMAT}


def test_keys_that_a_newer_version_adds_do_not_matter(store):
    store.put(FORMAT_FILE, b'{"format": 1, "since": "2030"}')
    assert check_format(store)


def test_who_comes_second_after_a_newer_version_is_told(store):
    assert not check_format(store)
    store.put(FORMAT_FILE, b'{"format": 2}')
    with pytest.raises(UserError, match="has format 2, and this Vouch reads format 1"):
        write_format(store)
    assert store.get(FORMAT_FILE).data == b'{"format": 2}'


def test_threads_that_use_it_first_at_once_all_go_on(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_format(store), range(16)))
    assert check_format(store)


def _use(folder, start):
    start.wait()
    write_format(LocalStore(folder))


def test_processes_that_use_it_first_at_once_all_go_on(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=_use, args=(tmp_path / "new", start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FORMAT_FILE]


def test_a_bucket_of_a_newer_version_is_refused(tmp_path, make_images, make_campaign, label, s3_store):
    make_images(tmp_path / "images", 3)
    place = Workspace.model_validate({"uri": f"{s3_store.uri}/out", "s3": s3_store.options.model_dump()})
    campaign = make_campaign(workspace=place.model_dump())
    label(campaign)
    workspace = open_workspace(campaign.workspace)
    assert json.loads(workspace.get(FORMAT_FILE).data) == {"format": FORMAT}
    workspace.put(FORMAT_FILE, b'{"format": 7}')
    before = sorted(workspace.list())
    words = f"{s3_store.uri}/out/{FORMAT_FILE}: the workspace has format 7"
    for use in (label, read_status, export_campaign, lambda one: CampaignRun(one).__enter__()):
        with pytest.raises(UserError) as caught:
            use(campaign)
        assert str(caught.value).startswith(words)
    assert sorted(workspace.list()) == before


def test_a_run_in_a_bucket_asks_once_however_many_shards_there_are(
    tmp_path, make_images, make_campaign, label, s3_store, monkeypatch
):
    make_images(tmp_path / "images", 9)
    campaign = make_campaign(
        workspace={"uri": f"{s3_store.uri}/out", "s3": s3_store.options.model_dump()},
        run={"shard_size": 2, "retry_delay_s": 0},
    )
    asked = []
    get = type(s3_store).get
    monkeypatch.setattr(type(s3_store), "get", lambda self, key: (asked.append(key), get(self, key))[1])
    _, markers = label(campaign)
    assert len(markers) == 5
    assert asked.count(FORMAT_FILE) == 1
