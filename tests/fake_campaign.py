"""A campaign of fake models on drawn images, for tests of what comes after labelling."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.tasks.run import CampaignRun, RunOptions
from vouch_labels.tasks.shard.shard import process_shard


def draw_images(
    folder: Path, count: int, size: tuple[int, int] = (96, 64), objects: tuple[int, int] = (2, 5), start: int = 0
) -> None:
    """Draw bright boxes, which the fake detector finds, on dark noise: 000.png, 001.png ...

    Args:
        folder: Gets a folder `images`.
        count: How many.
        size: Width and height, pixels.
        objects: Fewest and most boxes of an image.
        start: Number of the first.
    """
    rng = np.random.default_rng(3 + start)
    (folder / "images").mkdir(exist_ok=start > 0)
    width, height = size
    for number in range(start, start + count):
        pixels = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
        for _ in range(rng.integers(objects[0], objects[1] + 1)):
            (x, y), (across, down) = rng.integers(0, height - 14, 2), rng.integers(8, 24, 2)
            pixels[y : y + down, x : x + across] = rng.integers(150, 255, 3, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:03d}.png")


def write_campaign(folder: Path, **sections: Any) -> Campaign:
    """Write the campaign of a folder; keyword arguments replace whole sections."""
    content = {
        "source": str(folder / "images"),
        "workspace": str(folder / "workspace"),
        "classes": ["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
        "models": {"device": "cpu"} | {name: {"backend": "fake"} for name in ("detector", "segmenter", "scorer")},
        "routing": {"precision": 0.7, "confidence": 0.8, "gate": "delivered", "missed": 0.0},
        "run": {"shard_size": 50, "retry_delay_s": 0},
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content | sections))
    return load_campaign(path)


def label(campaign: Campaign) -> None:
    """Run a campaign as far as its labels, also where its classes have become fewer."""
    with CampaignRun(campaign, options=RunOptions(accept_changes=True)) as session:
        session.plan()
        for shard in session.pending():
            process_shard(shard.id, session.settings)
