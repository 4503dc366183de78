"""The same files from this process, from workers, and from workers and drivers that were killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from tests.cluster_workers import ORDERS, Rival
from tests.processes import HANG_S, until
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.cluster import Cluster
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.events import ignore
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.store.open import open_store

pytestmark = pytest.mark.usefixtures("ray_installed")

ROOT = Path(__file__).parents[3]
DATES = ("date_created", "year")


def content(campaign):
    """Every object of a campaign's workspace but for the lock, and dates of the export."""
    store = open_store(campaign.workspace)
    found = {info.key: store.get(info.key).data for info in store.list() if not info.key.endswith("lock.json")}
    for key, data in found.items():
        if key.endswith("annotations.json"):
            document = json.loads(data)
            document["info"] = {name: value for name, value in document["info"].items() if name not in DATES}
            found[key] = json.dumps(document).encode()
    return {key: data for key, data in found.items() if not key.startswith("orders/")}


def run(campaign, stop_after=None, on_event=ignore, at_each=lambda number: None):
    """Run a campaign, by its runner, or so many shards of it; gives what became of the workers."""
    with CampaignRun(campaign, on_event) as session:
        session.plan()
        shards = session.pending()
        if session.cluster is None:
            for number, shard in enumerate(shards):
                if number == stop_after:
                    return None
                process_shard(shard.id, session.settings)
        else:
            for number, attempt in enumerate(session.cluster.work(shards, session.due, session.check_lock), 1):
                assert attempt.error == ""
                at_each(number)
                if number == stop_after:
                    return None
        session.export()
        return session.cluster


def shards_of(campaign):
    """The shards of a campaign, by planning it."""
    with CampaignRun(campaign) as session:
        return [shard.id for shard in session.plan().shards]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("counts", [(1, 2), pytest.param((4, 8), marks=pytest.mark.slow)])
def test_workers_write_what_this_process_writes(campaigns, counts):
    run(alone := campaigns("alone", 0))
    expected = content(alone)
    assert len(expected) > 11 * 7
    for workers in counts:
        driver = run(campaign := campaigns(f"with-{workers}", workers))
        assert (driver.lost, driver.retired) == ([], [])
        assert content(campaign) == expected


@pytest.mark.usefixtures("cluster")
def test_workers_that_die_leave_no_trace_and_those_in_their_place_work(campaigns, fragile):
    run(alone := campaigns("alone", 0))
    names = shards_of(campaigns("names", 0))
    for name, what in ((names[0], "die"), (names[5], "die done"), (names[-1], "die")):
        (fragile / name).write_text(what)
    driver = run(campaign := campaigns("killed", 2))
    assert len(driver.lost) == 3
    tries = [line.split() for line in (fragile / "log").read_text().splitlines()]
    assert len(tries) == len(names) + 3
    # Of two at a time three died: the last shard was done by a worker that came for one of them.
    assert len({process for _, process in tries}) >= 4
    assert content(campaign) == content(alone)


@pytest.mark.usefixtures("cluster")
def test_any_runner_goes_on_where_another_stopped(tmp_path, campaigns):
    run(alone := campaigns("alone", 0))
    for workers in (0, 2, 1, 0):
        run(campaign := campaigns("together", workers), stop_after=3)
    driver = run(campaign := campaigns("together", 2))
    assert driver is None or driver.lost == []
    assert content(campaign) == content(alone)
    with CampaignRun(campaign) as session:
        assert session.idle, "no worker is started where nothing is to be done"
        assert session.cluster is None


@pytest.mark.usefixtures("cluster", "credentials")
def test_workers_read_and_write_buckets(tmp_path, campaigns, moto_endpoint, write_campaign):
    import boto3

    # The cluster was started before these credentials were there: what the nodes have counts, not what the driver has.
    client = boto3.client("s3", endpoint_url=moto_endpoint)
    client.create_bucket(Bucket="ray-photos")
    for path in (tmp_path / "images").iterdir():
        client.upload_file(str(path), "ray-photos", f"images/{path.name}")
    s3 = {"endpoint_url": moto_endpoint, "path_style": True}

    def make(name, workers):
        places = {kind: {"uri": f"s3://ray-photos/{where}", "s3": s3} for kind, where in
                  (("source", "images"), ("workspace", name))}  # fmt: skip
        runner = {"runner": "ray", "workers": workers} if workers else {}
        return load_campaign(write_campaign(f"{name}.yaml", **places, run={"shard_size": 10} | runner))

    run(alone := make("alone", 0))
    module = "vouch_labels.tasks.nodes.PASSED_ON"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, ("AWS_EC2_METADATA_DISABLED", "AWS_DEFAULT_REGION"))
        with pytest.raises(
            UserError, match="a node reads by its own credentials, those in the environment of its `ray"
        ):
            run(make("workers", 2))
        patch.setattr(module, tuple(name for name in os.environ if name.startswith("AWS_")))
        run(campaign := make("workers", 2))
    assert content(campaign) == content(alone)


def of_this_run(folder):
    """Processes of the Ray that was started below a folder, and the workers; some wipe all but where they run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            words += bytes((place / "cwd").readlink())
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(folder).encode() in words and state != "Z" and int(place.name) != os.getpid():
            found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_ended_leaves_no_process_and_the_next_one_goes_on(tmp_path, campaigns, number):
    run(alone := campaigns("alone", 0))
    campaign = campaigns("ended", 2)
    # The folder's name in the environment tells these processes from all others.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    temporary = tempfile.mkdtemp(
        prefix="vouch-", dir="/tmp"
    )  # short, for Ray's sockets; a killed run leaves its logs there
    environment |= {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": temporary,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "VOUCH_LOG": str(tmp_path / "log"),
        "HOME": str(tmp_path),
    }
    words = [sys.executable, "-m", "vouch_labels.flows.cli", "run", str(tmp_path / "ended.yaml"), "--plain"]
    command = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    done = tmp_path / "ended/runs/main/done"
    until(lambda: command.poll() is not None or (done.is_dir() and any(done.iterdir())))
    command.send_signal(number)
    command.wait(HANG_S)
    until(lambda: not of_this_run(tmp_path))
    assert number == signal.SIGKILL or not list(Path(temporary).iterdir())
    assert not (tmp_path / ".ray").exists()
    shutil.rmtree(temporary)
    run(load_campaign(tmp_path / "ended.yaml").model_copy(update={"run": alone.run}))
    assert content(campaign) == content(alone)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_bundled_models_give_the_same_bytes_on_workers(tmp_path, write_campaign, monkeypatch):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((ROOT / "starter/samples").glob("*.jpg"))[:8]:
        shutil.copy(path, images)
    truth = json.loads((ROOT / "starter/samples/ground_truth.json").read_text(encoding="utf-8"))
    classes = [entry["name"] for entry in truth["categories"]]

    def make(name, **run):
        sections = {"classes": classes, "models": {"device": "cpu"}, "run": {"shard_size": 2} | run}
        return load_campaign(write_campaign(f"{name}.yaml", workspace=str(tmp_path / name), **sections))

    run(alone := make("alone"))
    expected = content(alone)
    assert sum(marker["counts"]["labels"] for key, data in expected.items() if "/done/" in key
               and (marker := json.loads(data))) > 8  # fmt: skip
    for threads in (1, 2):  # whatever the number of threads
        campaign = make(f"workers-{threads}", runner="ray", workers=2, cpus_per_worker=threads)
        run(campaign)
        assert content(campaign) == expected
    # One that would compute in another precision is given up before it gets a shard.
    (orders := tmp_path / "orders").mkdir()
    monkeypatch.setenv(ORDERS, str(orders))
    monkeypatch.setattr("vouch_labels.tasks.nodes.PASSED_ON", (ORDERS,))
    monkeypatch.setattr("vouch_labels.tasks.run.Cluster", partial(Cluster, worker=Rival))
    campaign = make("rivals", runner="ray", workers=2)
    driver = run(campaign, on_event=lambda event: getattr(event, "retired", 0) and (orders / "go").touch())
    (retired,) = driver.retired
    assert "its labels would differ in " in retired
    assert retired.endswith("give all nodes the same files and kind of GPU, or set models.precision")
    assert content(campaign) == expected
