import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


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
