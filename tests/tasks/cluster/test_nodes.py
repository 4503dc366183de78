"""Runs on several nodes of a real cluster, of which some die; and clusters that do not let a run in."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fault_runs import FaultyProxy
from tests.processes import HANG_S, ROOT, until
from tests.tasks.cluster.test_same_bytes import content, run, shards_of
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks.store.open import open_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_installed")]

DRIVER = """
import sys
from functools import partial
from pathlib import Path
from tests.cluster_workers import ORDERS, Fragile
from tests.tasks.cluster.test_same_bytes import run
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks import nodes, run as module
from vouch_labels.tasks.cluster import Cluster
nodes.PASSED_ON = (ORDERS,)
module.Cluster = partial(Cluster, worker=Fragile)
run(load_campaign(Path(sys.argv[1])))
"""
CONNECT = """
import sys
from vouch_labels.schemas.campaign import RunConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.nodes import Connection, Size
try:
    with Connection(RunConfig(runner="ray", ray={"address": sys.argv[1]}), Size(2, 1)) as connection:
        print(connection.room(), connection.lacks())
except UserError as error:
    print(error)
"""
FAULTS = 0.05


@pytest.fixture
def proxy(moto_endpoint, credentials):
    """A bucket's server that can be told to fail now and then; the nodes are started with credentials for it."""
    with FaultyProxy(moto_endpoint, 0, delay_s=0.01) as proxy:
        yield proxy


@pytest.fixture(params=["folder", "bucket"])
def make(request, tmp_path, make_images, write_campaign, moto_endpoint, proxy, nodes):
    """Make campaigns over the same 40 images in a folder, or in a bucket whose server fails now and then."""
    make_images(tmp_path / "images", 40)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    base, s3 = str(tmp_path), {}
    if request.param == "bucket":
        import boto3

        bucket = f"nodes-{os.urandom(4).hex()}"
        client = boto3.client("s3", endpoint_url=moto_endpoint)
        client.create_bucket(Bucket=bucket)
        for path in (tmp_path / "images").iterdir():
            client.upload_file(str(path), bucket, f"images/{path.name}")
        options = {"endpoint_url": proxy.endpoint, "path_style": True, "checksums": "when_required", "max_attempts": 8}
        base, s3 = f"s3://{bucket}", {"s3": options}

    def write(name, workers, **run):
        runner = {"runner": "ray", "workers": workers, "gpus_per_worker": 0} if workers else {}
        sections = (
            {"shard_size": 8 if s3 else 2, "retry_delay_s": 0} | runner | {"ray": {"address": nodes.address}} | run
        )
        source, workspace = ({"uri": f"{base}/{folder}"} | s3 for folder in ("images", name))
        return load_campaign(write_campaign(f"{name}.yaml", source=source, workspace=workspace, run=sections))

    return write


def test_two_nodes_write_what_this_process_writes_whatever_dies(tmp_path, make, proxy, nodes, fragile):
    alone = make("alone", 0)
    run(alone)
    expected = content(alone)
    proxy.rate = FAULTS
    nodes.add(4)
    dies = nodes.add(4)

    names = shards_of(make("names", 0))
    count = 2 if "://" in alone.workspace.uri else 8
    for name in names:
        (fragile / name).write_text(f"wait {count}")
    driver = run(campaign := make("calm", count, cpus_per_worker=8 // count))
    assert (driver.most, driver.lost, driver.retired) == (count, [], [])
    assert content(campaign) == expected

    # A worker a node. One dies in its first shard, and others wait in theirs until the one in its place has a shard.
    (fragile / "log").unlink()
    (fragile / names[0]).write_text("die")
    for name in names[1:]:
        (fragile / name).write_text("wait 3")
    campaign = make("killed", 2, cpus_per_worker=4)
    driver = run(campaign, at_each=lambda number: nodes.kill(dies) if number == 3 else None)
    assert len(driver.lost) >= 2  # Ray may try the dead node for the next one
    assert all(lost.endswith((": its process died", ": its node died")) for lost in driver.lost)
    assert content(campaign) == expected

    # The driver dies, its workers end with it, and the next one goes on with what is left of the nodes and a new one.
    nodes.add(4)
    (fragile / "log").unlink()
    for number, name in enumerate(names):
        (fragile / name).write_text("wait 99" if number > 4 else "")
    campaign = make("again", 2, cpus_per_worker=4)
    words = [sys.executable, "-c", DRIVER, str(tmp_path / "again.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    killed = subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    store = open_store(campaign.workspace)
    until(lambda: killed.poll() is not None or len(list(store.list("runs/main/done/"))) > 2)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(HANG_S) == -signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{line.split()[1]}").exists() for line in (fragile / "log").open()))
    (fragile / "go").touch()
    driver = run(campaign)
    assert driver.lost == []
    assert content(campaign) == expected


def test_a_cluster_lets_in_who_has_its_token_alone(tmp_path, nodes):
    def connect(**environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        words = [sys.executable, "-c", CONNECT, nodes.address]
        environment = kept | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | environment
        return subprocess.run(words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True).stdout.strip()

    token = os.environ["RAY_AUTH_TOKEN"]
    assert (
        connect(RAY_AUTH_TOKEN=token)
        == "0 a worker takes 2 CPUs and 1 GPU, and the cluster has 0 CPUs and 0 GPUs on 1 node"
    )
    start = f"run.ray.address: {nodes.address}: "
    assert connect() == (
        f"{start}no token is set; export RAY_AUTH_TOKEN as on the cluster's nodes, or RAY_AUTH_MODE=disabled if they "
        "ask for none"
    )
    assert connect(RAY_AUTH_TOKEN="another" + token) == (
        f"{start}the cluster does not let us in; give RAY_AUTH_TOKEN its token, as on its nodes, and see that all have "
        "the same Ray"
    )
