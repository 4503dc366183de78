"""The flow: one run from images to a data set, its artifact, its retries, its refusals."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import until
from vouch_labels.schemas.errors import StoreError, UserError, WorkspaceBusyError
from vouch_labels.schemas.records import Marker
from vouch_labels.schemas.text import Table
from vouch_labels.tasks.run import RunOptions
from vouch_labels.tasks.shard.events import Exporting, Listing, Loading, Planned, Progress, Workers
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import open_store

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_a_folder_becomes_a_data_set(tmp_path, make_images, write_campaign):
    from vouch_labels.flows.run import run_campaign

    make_images(tmp_path / "images", 6)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    events = []
    summary = run_campaign(write_campaign(), on_event=events.append)
    assert (summary.images, summary.done, summary.failed, summary.pending) == (7, 6, 1, 0)
    assert summary.shards == summary.shards_processed == 2
    assert summary.labels == summary.accepted + summary.review > 0
    assert set(summary.classes) == {"cat", "dog"}
    exported = json.loads(Path(summary.export.annotations_file).read_text(encoding="utf-8"))
    assert len(exported["images"]) == 6
    assert len(exported["annotations"]) == summary.export.annotations == summary.labels
    assert {type(event) for event in events} == {Loading, Listing, Planned, Progress, Exporting}
    assert sum(event.done for event in events if isinstance(event, Progress)) == 6


def test_the_summary_becomes_an_artifact(tmp_path, make_images, write_campaign):
    from prefect.client.orchestration import get_client

    from vouch_labels.flows.run import run_campaign

    make_images(tmp_path / "images", 2)
    summary = run_campaign(write_campaign(), options=RunOptions(export=False))
    assert summary.export is None
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 1}).json()
    assert found[0]["key"] == "vouch-run"
    assert f"| labels | {summary.labels} |" in found[0]["data"]


def test_a_shard_is_tried_again_and_the_others_go_on(tmp_path, make_images, write_campaign, monkeypatch):
    import vouch_labels.flows.run as flow

    make_images(tmp_path / "images", 12)
    work, tries = process_shard, {}

    def fragile(shard, settings, on_event) -> Marker:
        tries[shard] = tries.get(shard, 0) + 1
        first = next(iter(tries))
        if shard == first or tries[shard] == 1:
            raise StoreError("the store is down")
        return work(shard, settings, on_event)

    monkeypatch.setattr(flow, "process_shard", fragile)
    summary = flow.run_campaign(write_campaign())
    assert sorted(tries.values()) == [2, 2, 3]
    assert list(summary.shard_errors.values()) == ["the store is down"]
    assert (summary.done, summary.pending) == (8, 4)
    monkeypatch.undo()
    assert flow.run_campaign(write_campaign()).done == 12


def test_a_run_gives_up_when_nothing_works(tmp_path, make_images, write_campaign, monkeypatch):
    import vouch_labels.flows.run as flow

    make_images(tmp_path / "images", 24)
    tried = set()

    def broken(shard, settings, on_event) -> Marker:
        tried.add(shard)
        raise StoreError("no space left")

    monkeypatch.setattr(flow, "process_shard", broken)
    summary = flow.run_campaign(write_campaign(run={"shard_size": 4, "retries": 0}))
    assert len(tried) == len(summary.shard_errors) == flow.FAILURES_IN_A_ROW
    assert summary.pending == 24


def test_a_shard_that_takes_too_long_says_which_setting(tmp_path, make_images, write_campaign, monkeypatch):
    import vouch_labels.flows.run as flow

    make_images(tmp_path / "images", 2)
    # In steps: a thread is told to stop between two of them.
    monkeypatch.setattr(flow, "process_shard", lambda *_: until(lambda: False))
    summary = flow.run_campaign(write_campaign(run={"retries": 0, "shard_timeout_s": 0.5}))
    assert "run.shard_timeout_s" in next(iter(summary.shard_errors.values()))


def test_a_users_mistake_ends_the_run_at_once(tmp_path, make_images, write_campaign, monkeypatch):
    import vouch_labels.flows.run as flow

    make_images(tmp_path / "images", 8)
    tries = []

    def refuse(shard, settings, on_event):
        tries.append(shard)
        raise UserError("the bucket refuses access; check the credentials")

    monkeypatch.setattr(flow, "process_shard", refuse)
    with pytest.raises(UserError, match="refuses access"):
        flow.run_campaign(write_campaign())
    assert len(tries) == 1


def test_two_runs_on_one_workspace_are_refused(tmp_path, make_images, write_campaign):
    from vouch_labels.flows.run import run_campaign

    make_images(tmp_path / "images", 2)
    from vouch_labels.schemas.campaign_file import load_campaign

    path = write_campaign()
    with (
        WorkspaceLock(open_store(load_campaign(path).workspace), "main"),
        pytest.raises(WorkspaceBusyError, match="in use by process"),
    ):
        run_campaign(path)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"source": "nowhere"}, "does not exist"),
        ({"models": {"device": "cuda:7"}}, "this machine has"),
        ({"models": {"detector": {"backend": "yolo"}}}, "unknown backend 'yolo'; use one of"),
        ({"models": {"detector": {"backend": "fake"}, "segmenter": {"checkpoint": "/no/such.pth"}}}, "no/such.pth"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, make_images, write_campaign, sections, message):
    from vouch_labels.flows.run import run_campaign

    make_images(tmp_path / "images", 2)
    with pytest.raises(UserError, match=message) as caught:
        run_campaign(write_campaign(**sections))
    assert "\n" not in str(caught.value)


def test_an_empty_source_is_refused(tmp_path, write_campaign):
    from vouch_labels.flows.run import run_campaign

    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        run_campaign(write_campaign())


def test_a_source_that_goes_away_ends_the_run_with_an_error(tmp_path, make_images, write_campaign, monkeypatch):
    import vouch_labels.flows.run as flow

    keys = make_images(tmp_path / "images", 24)
    work, tries = process_shard, []

    def dropped(shard, settings, on_event) -> Marker:
        tries.append(shard)
        if len(tries) == 2:
            for key in keys:
                (tmp_path / "images" / key).unlink()
        return work(shard, settings, on_event)

    monkeypatch.setattr(flow, "process_shard", dropped)
    summary = flow.run_campaign(write_campaign(run={"shard_size": 4, "retries": 0}))
    assert (summary.done, summary.failed, summary.pending) == (4, 0, 20)
    assert len(summary.shard_errors) == flow.FAILURES_IN_A_ROW
    assert all("are gone from" in words for words in summary.shard_errors.values())


def test_the_flow_takes_a_limit_and_accepts_changes(tmp_path, make_images, write_campaign):
    from vouch_labels.flows.run import vouch_run

    make_images(tmp_path / "images", 6)
    make_images(tmp_path / "others", 6, start=50)
    assert vouch_run(str(write_campaign()), limit=2)["done"] == 2
    assert vouch_run(str(write_campaign()), export=False)["done"] == 6
    other = str(write_campaign(source=str(tmp_path / "others")))
    with pytest.raises(UserError, match="--accept-changes"):
        vouch_run(other)
    assert vouch_run(other, accept_changes=True)["removed_images"] == 6


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'vouch-labels[ray]'")
def test_two_workers_of_ray_label_a_folder(tmp_path, make_images, write_campaign, monkeypatch):
    from vouch_labels.flows.run import run_campaign, vouch_run

    make_images(tmp_path / "images", 6)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    events = []
    run = {"runner": "ray", "workers": 2, "shard_size": 2, "retry_delay_s": 0}
    summary = run_campaign(write_campaign(run=run), on_event=events.append)
    assert (summary.images, summary.done, summary.failed, summary.pending) == (7, 6, 1, 0)
    assert (summary.shards_processed, summary.workers_lost, summary.workers_retired) == (4, [], [])
    assert 1 <= summary.workers <= 2
    assert sum(event.done for event in events if isinstance(event, Progress)) == 6
    assert any(isinstance(event, Workers) and event.ready for event in events)
    table = next(block for block in summary.blocks() if isinstance(block, Table))
    assert ("workers", str(summary.workers)) in {tuple(row) for row in table.cells()}
    again = run_campaign(write_campaign())
    assert (again.shards_processed, again.workers, again.labels) == (0, 0, summary.labels)
    # As a deployment runs it: nothing is opened before the flow.
    make_images(tmp_path / "images", 3, start=10)
    found = vouch_run(str(write_campaign(run=run)))
    assert (found["new_images"], found["done"], found["shards_processed"]) == (3, 9, 2)
    assert 1 <= found["workers"] <= 2
