"""Runs of the bundled models on freshly drawn scenes, labelled once and kept in a temporary folder."""

import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.campaigns import write_campaign
from benchmarks.jobs import run_bare
from schemas.campaign import Campaign

STYLES: Final = {"noto": "seen style", "twitter": "harder style"}
SEED: Final = 640
"""World of the scenes; below 1000, so no training has seen it, nor was anything tuned on it."""
# As the demo has it: what is doubtful is to be labelled and then routed, not lost.
MODELS: Final = {"detector": {"min_score": 0.25}}


class StarterRun(NamedTuple):
    """A labelled run with its ground truth."""

    campaign: Campaign
    truth: Path
    workspace: Path


def kept_folder() -> Path:
    """Where labelled runs stay, so that reviews can be played again without labelling anew."""
    return Path(tempfile.gettempdir()) / f"vouch-bench-starter-{os.getuid()}"


def starter_run(parent: Path, style: str, images: int) -> StarterRun:
    """Draw scenes and label them, unless an earlier call has done it.

    Args:
        parent: Gets a folder for the scenes and their workspace.
        style: Key of STYLES.
        images: How many.
    """
    import json

    from schemas.campaign_file import load_campaign
    from starter.scenes.generate import TRUTH, generate_scenes

    folder = parent / f"{style}-{SEED}-{images}"
    truth = folder / "images" / TRUTH
    if not truth.exists():
        for half in folder.glob("images/scene-*.jpg"):
            half.unlink()
        generate_scenes(folder / "images", images, SEED, style=style)
    names = [entry["name"] for entry in json.loads(truth.read_text(encoding="utf-8"))["categories"]]
    path = write_campaign(
        folder,
        folder / "images",
        classes=names,
        models=MODELS,
        routing={},
    )
    run_bare(path)
    return StarterRun(load_campaign(path), truth, folder / "workspace")
