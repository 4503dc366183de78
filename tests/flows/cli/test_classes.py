"""What becomes of a campaign whose classes are one to the detector, or change."""

import subprocess
import sys

import pytest

from tests.fake_campaign import draw_images

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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "classes 'caf\u00e9' and 'cafe' are one to the detector" in done.stderr
    assert "loaded set()" in done.stdout
    assert not (tmp_path / "workspace").exists()


def test_models_check_refuses_them_too(vouch, twins):
    answer = vouch("models", "check", twins)
    assert answer.code == 2
    assert "classes 'caf\u00e9' and 'cafe' are one to the detector" in " ".join(answer.out.split())
