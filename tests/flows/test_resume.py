"""Killed at any moment and run again: the same bytes as without the kill, no label twice, none lost."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vouch_labels.tasks.store.local import LocalStore

RUNS = """
import json, sys
from pathlib import Path
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.shard import process_shard
from tests.processes import killed_at

def work():
    with CampaignRun(load_campaign(Path(sys.argv[1]))) as run:
        run.plan()
        for shard in run.pending():
            process_shard(shard.id, run.settings)
        run.export()

print(json.dumps([killed_at(work, number) for number in json.loads(sys.argv[2])]))
"""
ROOT = Path(__file__).parents[2]


def _runs(campaign: Path, kills: list[int]) -> list[tuple[int, int]]:
    """Run a campaign so many times, killed at these operations (0: not); exit codes, and numbers of operations."""
    words = [sys.executable, "-c", RUNS, str(campaign), json.dumps(kills)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(code, count) for code, count in json.loads(done.stdout)]


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
    document = json.loads(data)
    del document["info"]
    return json.dumps(document).encode()


def test_killed_ten_times_it_ends_with_the_same_bytes(tmp_path, make_images, write_campaign):
    make_images(tmp_path / "images", 120)
    sections = {"run": {"shard_size": 5}}
    [(code, operations)] = _runs(write_campaign("straight.yaml", workspace="straight", **sections), [0])
    assert code == 0
    rng = random.Random(int(os.environ.get("PYTEST_SEED", "7")))
    # So early that none of them comes to the end.
    kills = [rng.randint(1, operations // 10) for _ in range(10)]
    *killed, (code, _) = _runs(write_campaign("killed.yaml", workspace="killed", **sections), [*kills, 0])
    assert [one for one, _ in killed] == [-signal.SIGKILL] * 10
    assert code == 0
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
