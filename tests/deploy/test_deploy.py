"""Set-up, wheel and the files of deploy/ that no server reads."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.processes import HANG_S

ROOT = Path(__file__).parents[2]
STAND_IN = """\
#!/bin/sh
[ "$1" = -c ] || exit 1
exec "{python}" -c 'import sys; sys.version_info = tuple(map(int, "{version}".split("."))); exec(sys.argv[1])' "$2"
"""
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
RAY = yaml.safe_load((DEPLOY / "compose.ray.yaml").read_text())


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
        for entry in [*COMPOSE["secrets"].values(), *RAY["secrets"].values()]:
            assert drawn[Path(entry["file"]).name]
    assert (tmp_path / "secrets" / "postgres_password").read_text() == password
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    used = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|AUTH_STRING", key) or value.startswith("/run/secrets/"), key


def test_nodes_of_ray_share_image_token_and_data_and_only_workers_compute():
    head, node, worker = (RAY["services"][name] for name in ("ray-head", "ray-worker", "worker"))
    assert head["image"] == node["image"] == worker["image"]
    for service in (head, node, worker):
        assert "ports" not in service
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert Path(service["environment"]["RAY_AUTH_TOKEN_PATH"]).name in {*service["secrets"]}
        assert service["shm_size"]
    assert head["volumes"] == node["volumes"] == SERVICES["worker"]["volumes"]
    assert set(worker["secrets"]) == {*SERVICES["worker"]["secrets"], "ray_token"}
    assert {*head["secrets"], *node["secrets"], *worker["secrets"]} <= {*COMPOSE["secrets"], *RAY["secrets"]}
    assert "--num-cpus=0" in head["command"]
    assert "--num-cpus=0" in worker["command"][-1]
    # What stands in compose.yaml follows the ray that was started.
    assert SERVICES["worker"]["command"][-1].split("exec")[1] == worker["command"][-1].split("exec")[1]


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
