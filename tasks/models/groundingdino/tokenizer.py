"""Finds the tokenizer folder that belongs to a GroundingDINO checkpoint."""

from pathlib import Path
from typing import Final

from schemas.errors import CheckpointError
from tasks.models.weights.cache import cache_folder
from tasks.models.weights.hub import hub_folder
from tasks.models.weights.weights import Weights

PUBLISHED: Final = "bert-base-uncased"
"""What the official checkpoints were trained with."""

_WHERE = "models.detector.text_encoder"
_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"]


def tokenizer_folder(text_encoder: str | None, weights: Weights) -> Path:
    """Folder of the tokenizer.

    Args:
        text_encoder: A folder, or a name on the hub. None: a folder `tokenizer` beside the checkpoint where there is
            one (the bundled model has), else bert-base-uncased. Names are looked for in <cache>/tokenizers/<name>
            (put there by hand on machines without the hub), then in the hub's cache, then on the hub.
        weights: The checkpoint.

    Raises:
        CheckpointError: It is not on this machine and cannot be fetched.
    """
    beside = weights.path.parent / "tokenizer"
    if text_encoder is None and _is_tokenizer(beside):
        return beside
    name = text_encoder or PUBLISHED
    for folder in (Path(name).expanduser(), cache_folder() / "tokenizers" / name):
        if _is_tokenizer(folder):
            return folder
    if Path(name).expanduser().is_dir():
        raise CheckpointError(f"{_WHERE}: {name} holds no tokenizer.json or vocab.txt")
    folder = hub_folder(name, None, _FILES, _WHERE)
    if not _is_tokenizer(folder):
        raise CheckpointError(f"{_WHERE}: {name} on the hub holds no tokenizer; give a folder that does")
    return folder


def _is_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file()
