"""No input of a user ends a reader by a traceback, a signal, a hang, or with memory that it does not need.

`make fuzz` runs many; a few run always.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = {"truth": 5_000, "verdicts": 5_000, "images": 20_000, "campaigns": 5_000}
FEW = 150
MOST_KIB = 1 << 20
"""Peak memory of the process, Python and its packages included."""


@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_inputs(kind, tmp_path):
    count = int(COUNTS[kind] * float(os.environ["FUZZ"])) if "FUZZ" in os.environ else FEW
    first = int(os.environ.get("SEED", "0"))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.run", kind, str(first), str(count), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    seed = (tmp_path / "seed").read_text() if (tmp_path / "seed").exists() else "none"
    assert done.returncode == 0, f"{kind}, seed {seed}, ended with {done.returncode}:\n{done.stderr[-3000:]}"
    said, peak = done.stdout.splitlines()[-2:]
    print(said, f"{int(peak) >> 10} MiB")
    assert int(peak) < MOST_KIB
