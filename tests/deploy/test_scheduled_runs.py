"""Scheduled runs, for real on loopback: Prefect's server, PostgreSQL, a deployment, a worker, workers on Ray."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import boto3
import psutil
import pytest
import yaml
from PIL import Image

from tests.processes import HANG_S, NOBODY, until
from tests.requirements import POSTGRESQL
from vouch_labels.schemas.campaign_template import starter_campaign_text

ROOT = Path(__file__).parents[2]
FAKE = {"backend": "fake"}
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
WORKER = ("worker", "start", "--pool", "vouch", "--type", "process", "--limit", "1", "--with-healthcheck")
IMAGES = 60


def campaign(folder: Path) -> Path:
    (folder / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (40 * number, 90, 200)).save(folder / "images" / f"{number}.png")
    path = folder / "campaign.yaml"
    path.write_text(
        starter_campaign_text(
            {
                "source": {"uri": "./images"},
                "workspace": {"uri": "./workspace"},
                "classes": [{"name": "cat"}],
                "models": {"device": "cpu", "detector": FAKE, "segmenter": FAKE, "scorer": FAKE},
            }
        )
    )
    return path


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=HANG_S) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_deployed_run_completes_and_leaves_its_export(prefect, tmp_path):
    prefect.environment |= {"VOUCH_HOME": str(ROOT), "VOUCH_CAMPAIGN": str(campaign(tmp_path))}
    prefect.run("work-pool", "create", "vouch", "--type", "process")
    prefect.run("deploy", "--all", "--prefect-file", "deploy/prefect.yaml")
    deployment = ask(f"{prefect.api}/deployments/name/vouch-run/nightly")
    assert [entry["schedule"]["cron"] for entry in deployment["schedules"]] == ["0 2 * * *"]

    run = ask(f"{prefect.api}/deployments/{deployment['id']}/create_flow_run", {})
    with prefect.started("worker", *WORKER):
        state = await_end(prefect, run["id"])
    assert state["type"] == "COMPLETED", (state, (tmp_path / "worker.log").read_text())

    exported = json.loads((tmp_path / "workspace" / "exports" / "coco" / "annotations.json").read_text())
    assert len(exported["images"]) == 3
    artifacts = ask(f"{prefect.api}/artifacts/filter", {"artifacts": {"key": {"any_": ["vouch-run"]}}})
    assert "| images | 3 (3 new or changed, 0 removed) |" in artifacts[0]["data"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_scheduled_run_on_a_cluster_survives_the_death_of_a_worker(postgresql, bucket, tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(
        yaml.safe_dump(
            bucket.places
            | {
                "classes": ["cat"],
                "models": {"device": "cpu", "detector": FAKE, "segmenter": FAKE, "scorer": FAKE},
                "run": {"runner": "ray", "workers": 2, "cpus_per_worker": 1, "shard_size": 1, "retry_delay_s": 0},
            }
        )
    )
    with prefect_server(tmp_path, **postgresql.settings) as prefect:
        prefect.environment |= {"VOUCH_HOME": str(ROOT), "VOUCH_CAMPAIGN": str(path)}
        prefect.run("work-pool", "create", "vouch", "--type", "process")
        prefect.run("deploy", "--all", "--prefect-file", "deploy/prefect.yaml")
        prefect.run("deployment", "schedule", "create", "vouch-run/nightly", "--cron", "* * * * *", "--replace", "-y")
        with prefect.started("worker", *WORKER) as process:
            until(lambda: time.sleep(0.2) or len(bucket.keys("/done/")) > 1)
            prefect.run("deployment", "schedule", "clear", "vouch-run/nightly", "-y")
            victim = workers_of_ray(process.pid)[0]
            victim.send_signal(signal.SIGSTOP)  # so that the run cannot end before: it waits for this worker's shards
            assert len(bucket.keys("/done/")) < IMAGES
            victim.kill()
            [run] = [run for run in flow_runs(prefect) if run["state_type"] in ("RUNNING", *ENDED)]
            state = await_end(prefect, run["id"])
        log = (tmp_path / "worker.log").read_text()
        assert state["type"] == "COMPLETED", (state, log)
        assert run["auto_scheduled"]
        artifacts = ask(f"{prefect.api}/artifacts/filter", {"artifacts": {"key": {"any_": ["vouch-run"]}}})
    assert f"process {victim.pid} on " in artifacts[0]["data"]
    assert "it was lost" in artifacts[0]["data"]
    assert len(bucket.keys("/done/")) == IMAGES
    [key] = bucket.keys("exports/coco/annotations.json")
    assert len(json.loads(bucket.read(key))["images"]) == IMAGES
    assert postgresql.ask("SELECT state_type::text FROM flow_run WHERE start_time IS NOT NULL") == [("COMPLETED",)]


def workers_of_ray(ancestor: int) -> list[psutil.Process]:
    """Ray names the process of an actor after its class, and the method that is at work."""
    children = psutil.Process(ancestor).children(recursive=True)
    return [child for child in children if "ray::Worker" in " ".join(child.cmdline())]


def flow_runs(prefect) -> Any:
    return ask(f"{prefect.api}/flow_runs/filter", {})


@dataclass
class Bucket:
    """A bucket of a real S3 server where one is named, else of a made-up one."""

    client: Any
    name: str
    endpoint: str

    @property
    def places(self) -> dict[str, Any]:
        """Sections of a campaign."""
        s3 = {"endpoint_url": self.endpoint, "path_style": True, "checksums": "when_required"}
        kinds = (("source", "images"), ("workspace", "workspace"))
        return {kind: {"uri": f"s3://{self.name}/{folder}", "s3": s3} for kind, folder in kinds}

    def keys(self, part: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Contents", []) if part in item["Key"]]

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()


@pytest.fixture
def bucket(request, credentials, make_images, tmp_path) -> Iterator[Bucket]:
    endpoint = os.environ.get("S3_TEST_ENDPOINT") or request.getfixturevalue("moto_endpoint")
    client = boto3.client("s3", endpoint_url=endpoint)
    bucket = Bucket(client, f"vouch-test-{os.getpid()}-{secrets.token_hex(4)}", endpoint)
    client.create_bucket(Bucket=bucket.name)
    make_images(tmp_path / "images", IMAGES)
    for path in (tmp_path / "images").iterdir():
        client.upload_file(str(path), bucket.name, f"images/{path.name}")
    yield bucket
    for key in bucket.keys(""):
        client.delete_object(Bucket=bucket.name, Key=key)
    client.delete_bucket(Bucket=bucket.name)


@dataclass
class PostgreSQL:
    """A server with one user and an empty database, both called prefect."""

    port: int
    password: str

    @property
    def settings(self) -> dict[str, str]:
        """What Prefect's server is told, as in compose.yaml."""
        prefix = "PREFECT_SERVER_DATABASE_"
        return {
            f"{prefix}DRIVER": "postgresql+asyncpg", f"{prefix}HOST": "127.0.0.1", f"{prefix}PORT": str(self.port),
            f"{prefix}USER": "prefect", f"{prefix}NAME": "prefect", f"{prefix}PASSWORD": self.password,
        }  # fmt: skip

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        async def fetch() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=self.port, user="prefect", database="prefect", password=self.password
            )
            rows = await connection.fetch(query)
            await connection.close()
            return [tuple(row) for row in rows]

        return asyncio.run(fetch())


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    """A server in a folder of its own, on loopback; as an ordinary user, since it refuses root."""
    programs = Path(POSTGRESQL).resolve().parent
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    # Not below tmp_path: that is the caller's alone, and a socket's path may have 107 letters.
    with tempfile.TemporaryDirectory(prefix="vouch-postgresql-") as name:
        if user:
            os.chown(name, NOBODY, NOBODY)
        database = PostgreSQL(_free_port(), secrets.token_hex(16))
        password = Path(name) / "password"
        password.write_text(database.password)
        words = [f"--pgdata={name}/data", "--username=prefect", "--auth=scram-sha-256", f"--pwfile={password}"]
        subprocess.run(
            [str(programs / "initdb"), *words, "--encoding=UTF8", "--no-locale", "--no-sync"],
            cwd=name, check=True, capture_output=True, timeout=HANG_S, **user,
        )  # fmt: skip
        password.unlink()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(database.port),
            "unix_socket_directories": name,
            "fsync": "off",
        }
        words = [f"--{key}={value}" for key, value in settings.items()]
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", f"{name}/data", *words],
            cwd=name, stderr=subprocess.DEVNULL, start_new_session=True, **user,
        )  # fmt: skip
        try:
            environment = {"PGPASSWORD": database.password, "PATH": os.defpath}
            words = ["--host=127.0.0.1", f"--port={database.port}", "--username=prefect"]
            ready = [str(programs / "pg_isready"), *words]
            until(lambda: subprocess.run(ready, env=environment, capture_output=True, check=False).returncode == 0)
            subprocess.run([str(programs / "createdb"), *words, "prefect"], env=environment, check=True, timeout=HANG_S)
            yield database
        finally:
            process.send_signal(signal.SIGINT)  # ends connections
            process.wait(HANG_S)


@pytest.mark.slow
def test_the_automation_and_the_pool_for_kubernetes_are_accepted(prefect):
    template = "deploy/kubernetes/job-template.json"
    prefect.run("work-pool", "create", "vouch", "--type", "kubernetes", "--base-job-template", template)
    pool = ask(f"{prefect.api}/work_pools/vouch")
    assert (pool["type"], pool["base_job_template"]) == ("kubernetes", json.loads((ROOT / template).read_text()))
    prefect.run("automation", "create", "-f", "deploy/automations.yaml")
    (automation,) = ask(f"{prefect.api}/automations/filter", {})
    assert automation["enabled"]
    assert automation["trigger"]["within"] == 90
    assert automation["actions"][0]["state"] == "CRASHED"


def await_end(prefect, run: str) -> Any:
    def state() -> Any:
        return ask(f"{prefect.api}/flow_runs/{run}")["state"]

    until(lambda: state()["type"] in ENDED)
    return state()


@dataclass
class Prefect:
    """A server of its own, with nothing shared with the user's."""

    api: str
    environment: dict[str, str]
    folder: Path

    def run(self, *words: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    @contextmanager
    def started(self, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process in a group of its own, which is ended with all that it started."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "--no-prompt", *words],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            _end(process)


@pytest.fixture
def prefect(tmp_path) -> Iterator[Prefect]:
    with prefect_server(tmp_path) as server:
        yield server


@contextmanager
def prefect_server(folder: Path, **settings: str) -> Iterator[Prefect]:
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_"))},
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "COLUMNS": "200",
        **settings,
    }
    server = Prefect(environment["PREFECT_API_URL"], environment, folder)
    words = ("server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    with server.started("server", *words) as process:
        _await(f"{server.api}/health", process, folder / "server.log")
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            urllib.request.urlopen(url, timeout=HANG_S).close()
        except OSError:
            return False
        return True

    until(answers)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The group was made for this process alone. What does not end of itself after a while is killed.
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    process.wait(HANG_S)
