"""The process form of deploy/, for real on loopback: server, work pool, worker, deployment, a run."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.waiting import HANG_S, until
from vouch_labels.schemas.campaign_template import starter_campaign_text

ROOT = Path(__file__).parents[2]
FAKE = {"backend": "fake"}
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

pytestmark = pytest.mark.slow


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
