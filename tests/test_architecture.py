"""What must stay light stays light; which way imports go is checked by `make lint`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vouch_labels.flows.cli", ["torch", "prefect", "fiftyone", "numpy", "pyarrow", "transformers"]),
        ("vouch_labels.tasks.export.export", ["torch", "prefect", "fiftyone", "transformers"]),
        (
            "vouch_labels.tasks.models.registry",
            ["torch", "transformers", "groundingdino", "segment_anything", "open_clip"],
        ),
        ("vouch_labels.schemas.campaign", ["torch", "numpy", "pyarrow"]),
    ],
)
def test_imports_stay_light(module, heavy):
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(heavy)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
