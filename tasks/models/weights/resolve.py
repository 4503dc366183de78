"""Turns a checkpoint reference into a verified file on this machine."""

import json
from pathlib import Path

from schemas.campaign import Checkpoint
from schemas.errors import CheckpointError
from tasks.models.weights.cache import cache_folder
from tasks.models.weights.digest import sha256_of
from tasks.models.weights.hub import hub_file
from tasks.models.weights.official import OFFICIAL, Kind, Official
from tasks.models.weights.reference import file_of_reference, names_of
from tasks.models.weights.weights import Weights

STARTER = Path(__file__).resolve().parents[3] / "starter" / "weights"
"""The bundled models: <kind>.safetensors, <kind>.json (architecture), tokenizer/, checksums.json."""


def resolve(config: Checkpoint, kind: Kind, *, download: bool = True) -> Weights:
    """Find, fetch if need be, and verify the file that a config's checkpoint names.

    'starter' is the bundled file; a name of `OFFICIAL` is looked for in <cache>/checkpoints/<file name> (put there by
    hand on machines without the hub) and then in the hub's cache; hf://, s3:// and paths speak for themselves. The
    SHA-256 is always computed; it must equal the config's, or else the one that is known for the name. A file that is
    an official one under another name brings its architecture along.

    Args:
        config: The model's section of the campaign.
        kind: detector, segmenter or scorer.
        download: Whether to fetch what is not on this machine yet.

    Raises:
        CheckpointError: The reference is not understood, or the file is missing, unreachable or not the pinned one.
        VouchError: The cache cannot be written.
    """
    where = f"models.{kind}.checkpoint"
    architecture = _chosen(config, kind)
    known: str | None = None
    if config.checkpoint == "starter":
        path, known = _starter(kind, where)
        architecture = architecture or path.with_suffix(".json")
    elif config.checkpoint in OFFICIAL:
        known = OFFICIAL[config.checkpoint].sha256
        path = _official(config.checkpoint, kind, where, download)
    else:
        path = file_of_reference(config.checkpoint, kind, where, download)
    actual, expected = sha256_of(path), config.sha256 or known
    if expected is not None and actual != expected:
        raise CheckpointError(
            f"{where}: {path} has SHA-256 {actual}, not {expected}; "
            "the file is damaged or another one: fetch it again, or correct the sha256"
        )
    return Weights(path, actual, architecture or _architecture_of(actual, kind), config.checkpoint)


def _chosen(config: Checkpoint, kind: Kind) -> str | Path | None:
    """The architecture that the config names: a JSON file, or a built-in name for the backend to check."""
    if config.architecture is None or not config.architecture.endswith(".json"):
        return config.architecture
    path = Path(config.architecture).expanduser()
    if not path.is_file():
        raise CheckpointError(f"models.{kind}.architecture: no file {config.architecture}; check the path")
    return path


def _starter(kind: Kind, where: str) -> tuple[Path, str]:
    path = STARTER / f"{kind}.safetensors"
    checksums = STARTER / "checksums.json"
    try:
        pin = str(json.loads(checksums.read_text(encoding="utf-8"))[path.name])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where}: {checksums} does not pin {path.name}; install again") from error
    if not path.is_file():
        raise CheckpointError(f"{where}: the bundled model {path} is missing; install again")
    return path, pin


def _official(name: str, kind: Kind, where: str, download: bool) -> Path:
    official = OFFICIAL[name]
    if official.kind != kind:
        raise CheckpointError(f"{where}: {name} is a {official.kind}; use one of {', '.join(names_of(kind))}")
    by_hand = cache_folder() / "checkpoints" / Path(official.path).name
    if by_hand.is_file():
        return by_hand
    return hub_file(official.repository, official.revision, official.path, where, download)


def _architecture_of(sha256: str, kind: Kind) -> str | None:
    def same(official: Official) -> bool:
        return official.kind == kind and official.sha256 == sha256

    return next((official.architecture for official in OFFICIAL.values() if same(official)), None)
