"""Sets up the bundled sample images, as often as wanted, and a campaign of the bundled models over them."""

import json
from itertools import cycle
from pathlib import Path
from typing import Final

from benchmarks.campaigns import write_campaign

SAMPLES: Final = Path(__file__).parents[1] / "starter" / "samples"
IMAGES: Final = 96
QUICK_IMAGES: Final = 4


def sample_classes() -> list[str]:
    """Names of the classes that the samples show."""
    truth = json.loads((SAMPLES / "ground_truth.json").read_text(encoding="utf-8"))
    return [entry["name"] for entry in truth["categories"]]


def copy_samples(folder: Path, count: int) -> list[Path]:
    """Write `count` files, each round of the samples into a subfolder of its own, so that no copies are neighbours."""
    samples = sorted(SAMPLES.glob("*.jpg"))
    files = []
    for number, sample in zip(range(count), cycle(samples), strict=False):
        path = folder / f"round-{number // len(samples):03d}" / sample.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.read_bytes())
        files.append(path)
    return files


def sample_campaign(folder: Path, images: Path, device: str = "auto") -> Path:
    """Write a campaign with the bundled models, all else as by default."""
    return write_campaign(folder, images, classes=sample_classes(), models={"device": device})
