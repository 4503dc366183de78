"""No image file ends the decoder by a traceback, a signal or a hang, nor makes it take memory without bound."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_BYTES = 1 << 30
"""Peak memory of the process, Python and its packages included."""


MANY = 20_000
FEW = int(MANY * float(os.environ["FUZZ"])) if "FUZZ" in os.environ else 300


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_damaged_images(count, tmp_path):
    first = os.environ.get("SEED", "0")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.image_files", first, str(count), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    seed = (tmp_path / "seed").read_text() if (tmp_path / "seed").exists() else "none"
    assert done.returncode == 0, f"seed {seed} ended with {done.returncode}:\n{done.stderr[-3000:]}"
    said, peak = done.stdout.splitlines()[-2:]
    print(said, f"{int(peak) >> 20} MiB")
    assert int(peak) < MOST_BYTES
