"""Set-up, wheel and the files of deploy/, whose process form is tried for real on loopback."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.processes import HANG_S, until
from vouch_labels.schemas.campaign_template import starter_campaign_text

ROOT = Path(__file__).parents[2]
STAND_IN = """\
#!/bin/sh
[ "$1" = -c ] || exit 1
exec "{python}" -c 'import sys; sys.version_info = tuple(map(int, "{version}".split("."))); exec(sys.argv[1])' "$2"
"""
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
FAKE = {"backend": "fake"}
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def what_it_says(folder: Path, version: str | None) -> str:
    (folder / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/setup.sh", folder / "deploy")
    python = folder / "python"
    if version:
        python.write_text(STAND_IN.format(version=version, python=sys.executable), encoding="utf-8")
        python.chmod(0o755)
    done = subprocess.run(
        ["bash", folder / "deploy/setup.sh"], env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_another_python_gives_one_line(tmp_path, version):
    line = what_it_says(tmp_path, version)
    assert line.startswith(f"setup: Python 3.11, 3.12 or 3.13 is needed and Python {version} was found; install one")


def test_no_python_gives_one_line(tmp_path):
    assert f"and no {tmp_path / 'python'} that runs was found" in what_it_says(tmp_path, None)


@pytest.mark.parametrize("version", ["3.11.0", "3.12.1", "3.13.9"])
def test_these_are_taken(tmp_path, version):
    assert "cannot make virtual environments" in what_it_says(tmp_path, version)


# The wheel brings one name, and works beside folders that are called like the sources' own.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words], check=True, timeout=HANG_S)
    [made] = folder.glob("*.whl")
    return made


def test_one_package_with_its_data_and_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "vouch_labels",
        f"vouch_labels-{version('vouch-labels')}.dist-info",
    }
    for part in (
        "py.typed", "flows/cli/__main__.py", "review_ui/plugin/fiftyone.yml", "review_ui/plugin/index.umd.js",
        "starter/weights/detector.safetensors", "starter/samples/ground_truth.json", "starter/scenes/noto.png",
        "tasks/report/report.html.j2",
    ):  # fmt: skip
        assert f"vouch_labels/{part}" in names
    assert not [name for name in names if "/browser/" in name or name.endswith((".pyc", ".ts"))]
    licences = {Path(name).name for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "noto.md", "twitter.md"}


def test_folders_of_the_same_names_do_not_disturb_it(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "project" / "images").mkdir(parents=True)
    for name in ("flows", "tasks", "schemas", "review_ui", "starter"):
        (tmp_path / "project" / name).mkdir()
        (tmp_path / "project" / name / "__init__.py").write_text("raise ImportError('of the project, not of Vouch')\n")
    environment = os.environ | {
        "PYTHONPATH": f".{os.pathsep}{tmp_path / 'installed'}",
        "VOUCH_LOG": str(tmp_path / "log"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "vouch_labels.flows.cli", "init", "cats", "--source", "images", "--class", "cat"],
        cwd=tmp_path / "project", env=environment, capture_output=True, text=True, timeout=HANG_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "project" / "cats" / "campaign.yaml").exists()


def test_ports_are_open_to_this_machine_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_are_pinned_healthy_and_restarted():
    for name, service in SERVICES.items():
        assert re.search(r":[a-z0-9]", service["image"]), name
        assert not service["image"].endswith(":latest")
        if name != "deploy":
            assert service["restart"] == "unless-stopped", name
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        else:
            assert name == "deploy" or "healthcheck" in service, name


def test_no_secret_stands_in_the_file_and_each_is_drawn(tmp_path):
    (tmp_path / "secrets.sh").write_text((DEPLOY / "secrets.sh").read_text())
    for _ in range(2):  # the second time it keeps what is there
        subprocess.run(["bash", tmp_path / "secrets.sh"], check=True, capture_output=True)
        drawn = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
        password = drawn["postgres_password"]
        assert len(password) > 20
        for entry in COMPOSE["secrets"].values():
            assert drawn[Path(entry["file"]).name]
    assert (tmp_path / "secrets" / "postgres_password").read_text() == password
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    used = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|AUTH_STRING", key) or value.startswith("/run/secrets/"), key


def test_drawn_s3_keys_agree(tmp_path):
    (tmp_path / "secrets.sh").write_text((DEPLOY / "secrets.sh").read_text())
    subprocess.run(["bash", tmp_path / "secrets.sh"], check=True, capture_output=True)
    store = yaml.safe_load((tmp_path / "secrets" / "s3.json").read_text())["identities"][0]["credentials"][0]
    worker = (tmp_path / "secrets" / "aws_credentials").read_text()
    assert f"aws_access_key_id = {store['accessKey']}" in worker
    assert f"aws_secret_access_key = {store['secretKey']}" in worker


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_image_is_built_of_the_lock_and_runs_as_nobody_special(kind):
    lines = (DEPLOY / f"Dockerfile.{kind}").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    sources = [name for names in copied for name in names]
    ignore = (DEPLOY / f"Dockerfile.{kind}.dockerignore").read_text().splitlines()
    for name in sources:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignore
    assert {"requirements.lock", "pyproject.toml"} <= set(sources)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["packages"]) <= set(sources)
    assert lines.index("USER 10001") > max(i for i, line in enumerate(lines) if line.startswith(("RUN", "COPY")))
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_both_workers_take_one_run_at_a_time():
    for kind in ("cpu", "gpu"):
        assert '"--limit", "1"' in (DEPLOY / f"Dockerfile.{kind}").read_text()
    assert "--limit 1" in SERVICES["worker"]["command"][-1]
    assert SERVICES["worker-gpu"]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"


# The process form of deploy/, for real on loopback: server, work pool, worker, deployment, a run.


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
    words = ("worker", "start", "--pool", "vouch", "--type", "process", "--limit", "1", "--with-healthcheck")
    with prefect.started("worker", *words):
        state = await_end(prefect, run["id"])
    assert state["type"] == "COMPLETED", (state, (tmp_path / "worker.log").read_text())

    exported = json.loads((tmp_path / "workspace" / "exports" / "coco" / "annotations.json").read_text())
    assert len(exported["images"]) == 3
    artifacts = ask(f"{prefect.api}/artifacts/filter", {"artifacts": {"key": {"any_": ["vouch-run"]}}})
    assert "| images | 3 (3 new or changed, 0 removed) |" in artifacts[0]["data"]


@pytest.mark.slow
def test_the_automation_is_accepted(prefect):
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
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_"))},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "COLUMNS": "200",
    }
    server = Prefect(environment["PREFECT_API_URL"], environment, tmp_path)
    words = ("server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    with server.started("server", *words) as process:
        _await(f"{server.api}/health", process, tmp_path / "server.log")
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
