"""One Ray on the loopback interface for the tests of a module, and clusters of nodes that may be killed."""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.cluster_workers import ORDERS, Fragile
from tests.processes import ROOT, until
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks.cluster import Cluster

# As a run sets them before it imports Ray; here a test may import it first.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(scope="session")
def ray_installed():
    """Skip where the extra is not installed. Ray is not imported for that: how it is, is a part of what is tested."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'vouch-labels[ray]'")


@pytest.fixture(scope="module")
def cluster(ray_installed):
    """A cluster of eight CPUs that are not there; runs with `address: local` use it as well."""
    from vouch_labels.schemas.campaign import RunConfig
    from vouch_labels.tasks.nodes import Connection, Size

    with Connection(RunConfig(workers=8), Size(1, 0)):
        yield


TRIES = 3
"""Times that a node is started: Ray gives one up that takes longer than half a minute, on a busy machine too."""


def _has_begun(process: subprocess.Popen[bytes], log: Path) -> bool:
    return process.poll() is not None or b"Ray runtime started" in log.read_bytes()


class Nodes:
    """A cluster as `ray start` makes it, all on this machine: a head that takes no work, and nodes that may be killed.

    Its processes have the environment of the time when they are started.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, list[subprocess.Popen[bytes]]()
        self._start("--head", "--port=0", "--include-dashboard=false", "--num-cpus=0", f"--temp-dir={folder}/ray")
        address = folder / "ray/ray_current_cluster"
        until(lambda: address.exists() and address.read_text(encoding="utf-8"))  # written after "started" is said
        self.address = address.read_text(encoding="utf-8").strip()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        more = ("--num-gpus=0", f"--object-store-memory={80 << 20}", "--disable-usage-stats", "--block")
        command = [str(Path(sys.executable).with_name("ray")), "start", *words, *more]
        environment = os.environ | {"HOME": str(self._folder), "PYTHONPATH": str(ROOT)}
        for _ in range(TRIES):
            path = self._folder / f"{len(self._started)}.log"
            with path.open("wb") as log:
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True, env=environment
                )
            self._started.append(process)
            until(partial(_has_begun, process, path))
            if process.poll() is None:
                return process
            self.kill(process)
        raise AssertionError(path.read_text(encoding="utf-8"))

    def add(self, cpus: int) -> subprocess.Popen[bytes]:
        """Start a node."""
        return self._start(f"--address={self.address}", f"--num-cpus={cpus}")

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill all processes of a node at once, as if its machine were gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(node.pid)
            # Workers have process groups of their own, and would work on until they miss their raylet.
            for process in [*first.children(recursive=True), first]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        node.wait()

    def close(self) -> None:
        """End all of it."""
        for node in reversed(self._started):
            self.kill(node)


@pytest.fixture
def nodes(ray_installed):
    """Start a cluster of the nodes of `ray start`."""
    with tempfile.TemporaryDirectory(prefix="vouch-", dir="/tmp") as name:  # short, for Ray's sockets
        cluster = Nodes(Path(name))
        try:
            yield cluster
        finally:
            cluster.close()


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """Runs have workers that do as ordered; gives the folder for orders, see `Fragile`."""
    (folder := tmp_path / "orders").mkdir()
    monkeypatch.setenv(ORDERS, str(folder))
    monkeypatch.setattr("vouch_labels.tasks.nodes.PASSED_ON", (ORDERS,))
    monkeypatch.setattr("vouch_labels.tasks.run.Cluster", partial(Cluster, worker=Fragile))
    return folder


@pytest.fixture
def campaigns(tmp_path, make_images, write_campaign):
    """Make campaigns over the same images: name, number of workers (0: this process) -> the campaign."""
    make_images(tmp_path / "images", 40)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")

    def make(name, workers, **run):
        runner = {"runner": "ray", "workers": workers} if workers else {"runner": "in_process"}
        sections = {"run": {"shard_size": 4, "retry_delay_s": 0} | runner | run}
        return load_campaign(write_campaign(f"{name}.yaml", workspace=str(tmp_path / name), **sections))

    return make
