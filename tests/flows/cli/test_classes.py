"""What becomes of a campaign whose classes are one to the detector, or change."""

import json
import subprocess
import sys

import pytest

from tests.fake_campaign import draw_images
from tests.waiting import HANG_S

TWINS = """\
source: images
workspace: workspace
classes: [dog, caf\u00e9, cafe]
"""


@pytest.fixture
def twins(tmp_path):
    draw_images(tmp_path, 1)
    path = tmp_path / "campaign.yaml"
    path.write_text(TWINS, encoding="utf-8")
    return path


def test_run_refuses_classes_that_are_one_to_the_detector_before_anything_starts(twins, tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "vouch.log"))
    code = (
        "import sys\n"
        "from vouch_labels.flows.cli.app import main\n"
        f"sys.argv = ['vouch', 'run', {str(twins)!r}]\n"
        "try:\n    main()\n"
        "finally:\n    print('loaded', {'prefect', 'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 2
    assert "classes 'caf\u00e9' and 'cafe' are one to the detector" in done.stderr
    assert "loaded set()" in done.stdout
    assert not (tmp_path / "workspace").exists()


def test_a_run_with_nothing_to_do_starts_neither_models_nor_prefect(
    tmp_path, make_images, make_campaign, write_campaign, label, monkeypatch
):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "vouch.log"))
    make_images(tmp_path / "images", 3)
    label(make_campaign())
    classes = [{"name": "tiger", "was": "cat"}, {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}]
    code = (
        "import sys\n"
        "from vouch_labels.flows.cli.app import main\n"
        f"sys.argv = ['vouch', 'run', {str(write_campaign(classes=classes))!r}, '--json']\n"
        "try:\n    main()\n"
        "finally:\n    loaded = {'prefect', 'torch', 'transformers'} & set(sys.modules)\n"
        "    print('loaded', loaded, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "loaded set()" in done.stderr
    assert "loading" not in done.stderr
    found = json.loads(done.stdout)
    assert (found["done"], found["shards_processed"], set(found["classes"])) == (3, 0, {"tiger", "dog"})
    names = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())["categories"]
    assert [category["name"] for category in names] == ["tiger", "dog"]


def test_models_check_refuses_them_too(vouch, twins):
    answer = vouch("models", "check", twins)
    assert answer.code == 2
    assert "classes 'caf\u00e9' and 'cafe' are one to the detector" in " ".join(answer.out.split())
