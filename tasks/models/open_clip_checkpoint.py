"""Finds the file of a CLIP checkpoint, also by open_clip's own names."""

from pathlib import Path
from typing import Final

from schemas.campaign import ScorerConfig
from schemas.errors import CheckpointError
from tasks.models.weights.resolve import resolve
from tasks.models.weights.weights import Weights

_HUB_FILES: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def find_checkpoint(config: ScorerConfig) -> Weights:
    """Resolve the scorer's checkpoint; open_clip's model/tag becomes the hub file that it stands for.

    Args:
        config: The scorer's section of the campaign.

    Returns:
        The verified file; its architecture is model/tag, unless the config names another.

    Raises:
        CheckpointError: No such tag, or as `tasks.models.weights.resolve.resolve`.
    """
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    name, _, tag = config.checkpoint.partition("/")
    if not tag or "/" in tag or Path(config.checkpoint).is_file() or get_model_config(name) is None:
        return resolve(config, "scorer")
    repository, _, file = str(get_pretrained_cfg(name, tag).get("hf_hub", "")).rpartition("/")
    if not repository:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise CheckpointError(
            f"models.scorer.checkpoint: the hub has no checkpoint {tag!r} of {name} (its tags: {tags}); "
            "choose one of them, or give a file"
        )
    first: CheckpointError | None = None
    for candidate in (file,) if file else _HUB_FILES:
        changes = {
            "checkpoint": f"hf://{repository}/{candidate}",
            "architecture": config.architecture or config.checkpoint,
        }
        try:
            return resolve(config.model_copy(update=changes), "scorer")
        except CheckpointError as error:
            first = first or error
    assert first is not None
    raise first
