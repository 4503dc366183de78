"""Writes the campaigns that benchmarks run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FAKE_MODELS: Final = {
    "device": "cpu",
    **{kind: {"backend": "fake", "checkpoint": "fake"} for kind in ("detector", "segmenter", "scorer")},
}


def write_campaign(folder: Path, images: Path, **sections: Mapping[str, Any] | list[Any]) -> Path:
    """Write a campaign with a fresh workspace, and with the backends that need no model unless told otherwise.

    Args:
        folder: Gets campaign.yaml and the workspace.
        images: The source.
        sections: Replace whole sections of the campaign.

    Returns:
        The campaign file.
    """
    import yaml

    content = {
        "source": str(images),
        "workspace": str(folder / "workspace"),
        "classes": ["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
        "models": FAKE_MODELS,
        "routing": {"accept": {"detector_score": 0.5}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content | sections), encoding="utf-8")
    return path
