"""The wheel brings one name, and works beside folders that are called like the sources' own."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.waiting import HANG_S

ROOT = Path(__file__).parents[2]


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
