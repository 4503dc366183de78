"""What tests of several rooms need: images to label, and campaigns that label them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import settings
from PIL import Image

from schemas.campaign.campaign import Campaign
from schemas.campaign.loading import load_campaign
from schemas.policy import Certification, Group, Policy
from schemas.records import Marker
from schemas.summary import RunSummary
from tasks.campaign_run import CampaignRun, Worked
from tasks.certify.calibrator import Calibrator
from tasks.shard.shard import process_shard

FAKE_MODELS = {
    "device": "cpu",
    "detector": {"backend": "fake"},
    "segmenter": {"backend": "fake"},
    "scorer": {"backend": "fake"},
}


# The same examples every time, so that a run of the suite says something about the change and not about its luck;
# `--hypothesis-profile=search` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2000, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a real S3-compatible server where none is named."""
    if not os.environ.get("S3_TEST_ENDPOINT"):
        for item in items:
            if item.get_closest_marker("s3"):
                item.add_marker(pytest.mark.skip(reason="S3_TEST_ENDPOINT names no server"))


def draw(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A dark picture with one to four bright rectangles."""
    rng = np.random.default_rng(seed)
    width, height = size
    pixels = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.integers(0, width - 20), rng.integers(0, height - 20)
        w, h = rng.integers(10, 20, 2)
        pixels[y : y + h, x : x + w] = rng.integers(150, 255, 3, dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def make_images() -> Callable[..., list[str]]:
    """Write images 000.png, 001.png ... into a folder, and give their keys."""

    def make(folder: Path, count: int, start: int = 0) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        keys = [f"{number:03d}.png" for number in range(start, start + count)]
        for number, key in enumerate(keys, start):
            draw(number).save(folder / key)
        return keys

    return make


@pytest.fixture
def write_campaign(tmp_path: Path) -> Callable[..., Path]:
    """Write a campaign of fake models over tmp_path/images; keyword arguments replace whole sections."""

    def write(name: str = "campaign.yaml", **sections: Any) -> Path:
        content = {
            "source": str(tmp_path / "images"),
            "workspace": str(tmp_path / "workspace"),
            "classes": ["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
            "models": FAKE_MODELS,
            "routing": {"accept": {"detector_score": 0.5}},
            "run": {"shard_size": 4, "retry_delay_s": 0},
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content | sections))
        return path

    return write


@pytest.fixture
def make_campaign(write_campaign: Callable[..., Path]) -> Callable[..., Campaign]:
    """As write_campaign, loaded."""

    def make(**sections: Any) -> Campaign:
        return load_campaign(write_campaign(**sections))

    return make


@pytest.fixture
def label() -> Callable[..., tuple[RunSummary, list[Marker]]]:
    """Run a campaign: plan, work off all shards, export."""

    def run(campaign: Campaign, **how: bool) -> tuple[RunSummary, list[Marker]]:
        with CampaignRun(campaign) as session:
            session.plan(**how)
            markers = [process_shard(shard.id, session.settings) for shard in session.pending()]
            worked = Worked(shards=len(markers), images=sum(marker.counts.images for marker in markers))
            return session.summary(worked, session.export(), 1.0), markers

    return run


@pytest.fixture
def calibrator() -> Calibrator:
    """Looks at one signal: p = sigmoid(4 (sam_iou - 0.5)), and is blind where it is missing."""
    return Calibrator(("sam_iou",), (0.5,), (0.25,), (1.0,), (None,), 0.0, {})


@pytest.fixture
def certified(calibrator: Calibrator) -> Callable[..., Policy]:
    """Make a certified policy from thresholds of classes; keyword arguments replace parts of its certification."""

    def make(thresholds: dict[str, float | None], *, version: str = "certified-1-test", **changes: Any) -> Policy:
        values = {
            "precision": 0.95, "confidence": 0.9, "gate": "delivered", "look": 1, "inputs": {},
            "calibrator": calibrator.to_dict(), "fit_labels": 200, "brier": 0.1, "brier_of_rate": 0.2,
            "fit_share": 0.0, "seed": 0, "plans": (1, 2), "verdicts": "0", "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        groups = tuple(Group(name=name, classes=(name,), p_correct=least) for name, least in thresholds.items())
        return Policy(
            version=version, basis="certified", groups=groups, certification=Certification(**(values | changes))
        )

    return make
