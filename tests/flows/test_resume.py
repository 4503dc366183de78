"""Killed at any moment and run again: the same bytes as without the kill, no label twice, none lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.store.local import LocalStore

RUN = """
import sys
from pathlib import Path
from schemas.campaign.loading import load_campaign
from tasks.campaign_run import CampaignRun, Worked
from tasks.shard.shard import process_shard

with CampaignRun(load_campaign(Path(sys.argv[1]))) as run:
    print("begun", flush=True)
    run.plan()
    for shard in run.pending():
        process_shard(shard.id, run.settings)
    run.export()
"""


def _start(campaign: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(campaign)], stdout=subprocess.PIPE, text=True)


def _finish(campaign: Path) -> float:
    with _start(campaign) as process:
        assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        assert process.wait(120) == 0
        return time.monotonic() - begun


def _content(workspace: Path) -> dict[str, bytes]:
    """Every object that markers or plans speak of; times in the export are left out.

    The store's own listing, so without temporary files: a process killed while it writes leaves one behind.
    """
    store = LocalStore(workspace)
    keys = [info.key for folder in ("runs/", "exports/", "policies/") for info in store.list(folder)]
    content = {key: store.get(key).data for key in keys if not key.endswith("lock.json")}
    for name, data in content.items():
        if name.endswith("annotations.json"):
            content[name] = _without_times(data)
    return content


def _without_times(data: bytes) -> bytes:
    import json

    document = json.loads(data)
    del document["info"]
    return json.dumps(document).encode()


def test_killed_ten_times_it_ends_with_the_same_bytes(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 120)
    sections = {"run": {"shard_size": 5}}
    straight = write_campaign("straight.yaml", workspace="straight", **sections)
    seconds = _finish(straight)
    killed = write_campaign("killed.yaml", workspace="killed", **sections)
    rng = random.Random(int(os.environ.get("PYTEST_SEED", "7")))
    landed = 0
    for _ in range(10):
        with _start(killed) as process:
            assert process.stdout.readline() == "begun\n"
            time.sleep(rng.uniform(0, 0.4 * seconds))
            landed += process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert landed >= 3
    _finish(killed)
    # To the byte, on any processor: both sides compute the same shards, in the same shapes, on the same machine.
    expected, found = _content(tmp_path / "straight"), _content(tmp_path / "killed")
    # Parts without a marker may lie about: they are named by their content and nobody reads them.
    parts = {name for name in found if "/parts/" in name}
    assert {name: found[name] for name in found if name not in parts or name in expected} == expected


@pytest.mark.slow
def test_a_killed_flow_resumes(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 60)
    campaign = write_campaign(run={"shard_size": 2})
    vouch = [str(Path(sys.executable).parent / "vouch"), "run", str(campaign), "--plain"]
    home = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "VOUCH_LOG": str(tmp_path / "vouch.log")}
    with subprocess.Popen(vouch, stderr=subprocess.PIPE, text=True, env=home, start_new_session=True) as process:
        assert any(line.startswith("labelling") for line in process.stderr)
        os.killpg(process.pid, signal.SIGKILL)
    done = subprocess.run([*vouch, "--json"], capture_output=True, text=True, env=home, check=False)
    assert done.returncode == 0, done.stderr
    assert '"images": 60, "done": 60' in done.stdout
