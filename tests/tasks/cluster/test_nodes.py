"""Runs on several nodes of a real cluster, of which some die; and clusters that do not let a run in."""

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.tasks.cluster.test_same_bytes import content, run, shards_of
from vouch_labels.schemas.campaign_file import load_campaign

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_installed")]

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


@pytest.fixture
def make(tmp_path, make_images, write_campaign, nodes):
    """Make campaigns over the same 40 images: name, number of workers (0: this process) -> the campaign."""
    make_images(tmp_path / "images", 40)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")

    def write(name, workers, **run):
        runner = {"runner": "ray", "workers": workers, "gpus_per_worker": 0} if workers else {}
        sections = {"shard_size": 2, "retry_delay_s": 0} | runner | {"ray": {"address": nodes.address}} | run
        return load_campaign(write_campaign(f"{name}.yaml", workspace=str(tmp_path / name), run=sections))

    return write


def test_two_nodes_write_what_this_process_writes_whatever_dies(make, nodes, fragile):
    alone = make("alone", 0)
    run(alone)
    expected = content(alone)
    nodes.add(4)
    dies = nodes.add(4)

    names = shards_of(make("names", 0))
    for name in names:
        (fragile / name).write_text("wait 8")
    driver = run(campaign := make("calm", 8, cpus_per_worker=1))
    assert (driver.most, driver.lost, driver.retired) == (8, [], [])
    assert content(campaign) == expected

    # A worker a node. One dies in its first shard, and others wait in theirs until the one in its place has a shard.
    (fragile / "log").unlink()
    (fragile / names[0]).write_text("die")
    for name in names[1:]:
        (fragile / name).write_text("wait 3")
    campaign = make("killed", 2, cpus_per_worker=4)
    driver = run(campaign, at_each=lambda number: nodes.kill(dies) if number == 3 else None)
    assert len(driver.lost) == 2
    assert all(lost.endswith((": its process died", ": its node died")) for lost in driver.lost)
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
