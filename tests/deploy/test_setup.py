"""Which Python the set-up takes, and what it says of others. A stand-in tells a version and makes no environment."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """\
#!/bin/sh
[ "$1" = -c ] || exit 1
exec "{python}" -c 'import sys; sys.version_info = tuple(map(int, "{version}".split("."))); exec(sys.argv[1])' "$2"
"""


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
