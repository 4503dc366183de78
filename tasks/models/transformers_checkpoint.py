"""Finds the folder of a transformers model and loads it without running code in it."""

from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.campaign import DetectorConfig
from schemas.errors import CheckpointError
from tasks.fingerprint import fingerprint
from tasks.models.weights.digest import sha256_of
from tasks.models.weights.hub import hub_folder
from tasks.models.weights.reference import split_hub_reference

FAMILIES: Final = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2")
"""Model types that can be asked for phrases."""

_WHERE: Final = "models.detector.checkpoint"
_FILES: Final = ("*.json", "*.txt", "*.model", "*.safetensors")


class Loaded(NamedTuple):
    """A model with its processor."""

    model: Any
    processor: Any
    fingerprint: str
    """Of all files that it was loaded from."""


def load_zero_shot(config: DetectorConfig) -> Loaded:
    """Load model and processor in fp32 on the CPU.

    Args:
        config: Its checkpoint is a folder or hf://owner/repo[@revision]; its sha256 is that of model.safetensors, or
            of the lines "<sha256>  <name>" of the parts of a split one, in the order of their names.

    Raises:
        CheckpointError: The files are missing, unreachable, damaged, of another kind, or not the pinned ones.
    """
    folder = _folder(config.checkpoint)
    hashes = {path.name: sha256_of(path) for pattern in _FILES for path in sorted(folder.glob(pattern))}
    weights = [name for name in hashes if name.endswith(".safetensors")]
    if not weights:
        raise CheckpointError(f"{_WHERE}: {config.checkpoint} holds no *.safetensors; save the model as safetensors")
    actual = hashes[weights[0]] if len(weights) == 1 else _joint([f"{hashes[name]}  {name}\n" for name in weights])
    if config.sha256 is not None and config.sha256 != actual:
        raise CheckpointError(
            f"{_WHERE}: the weights of {config.checkpoint} have SHA-256 {actual}, not {config.sha256}; "
            "they are damaged or others: fetch them again, or correct the sha256"
        )
    model, processor = _load(folder, config.checkpoint)
    return Loaded(model, processor, fingerprint(hashes))


def _folder(reference: str) -> Path:
    wanted = "give the folder of a saved model, or hf://owner/repo[@revision]"
    if reference.startswith("hf://"):
        repository, revision, inside = split_hub_reference(reference, _WHERE)
        if inside:
            raise CheckpointError(f"{_WHERE}: {reference} is one file and the backend needs all; {wanted}")
        return hub_folder(repository, revision, _FILES, _WHERE)
    folder = Path(reference).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{_WHERE}: the transformers backend finds no config.json in {reference}; {wanted}")
    return folder


def _joint(lines: list[str]) -> str:
    import hashlib

    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _load(folder: Path, reference: str) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(str(folder), **local).model_type
        if kind not in FAMILIES:
            raise CheckpointError(f"{_WHERE}: {reference} is a {kind} model; use one of {', '.join(FAMILIES)}")
        processor = AutoProcessor.from_pretrained(str(folder), **local)
        model, report = AutoModelForZeroShotObjectDetection.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{_WHERE}: {reference} cannot be loaded: {said[:200]}; fetch it again") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{_WHERE}: {reference} lacks {len(missing)} of the model's tensors ({missing[0]} ...); fetch it again"
        )
    return model.eval(), processor
