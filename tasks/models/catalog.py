"""Which checkpoints can be asked for by name, and where they lie on this machine."""

from pathlib import Path
from typing import Final

from pydantic import Field

from schemas.campaign import Checkpoint, Strict
from schemas.errors import CheckpointError, VouchError
from tasks.models.groundingdino.tokenizer import tokenizer_folder
from tasks.models.weights.official import OFFICIAL, Kind
from tasks.models.weights.reference import names_of
from tasks.models.weights.resolve import resolve

KINDS: Final[tuple[Kind, ...]] = ("detector", "segmenter", "scorer")


class CatalogEntry(Strict):
    """One checkpoint of the catalog."""

    kind: Kind = Field(description="What it is for.")
    name: str = Field(description="What `checkpoint` says to use it.")
    architecture: str = Field(description="Its built-in architecture, or the file that describes it.")
    bytes: int | None = Field(description="Size of the file; None for a bundled one that is missing.")
    sha256: str | None = Field(description="SHA-256 that the file must have.")
    path: Path | None = Field(description="The verified file on this machine; None: not here.")
    problem: str | None = Field(description="Why the file that is here cannot be used.")


def catalog() -> list[CatalogEntry]:
    """Look up every bundled and official checkpoint on this machine; files found are verified, none is fetched."""
    return [_look_up(kind, name) for kind in KINDS for name in names_of(kind)]


def pull(name: str) -> Path:
    """Fetch an official checkpoint unless it is here, and verify it.

    Args:
        name: As `catalog` names it.

    Returns:
        The file.

    Raises:
        CheckpointError: There is no such name, the file cannot be fetched, or is not the pinned one.
        VouchError: The cache cannot be written.
    """
    if name not in OFFICIAL:
        raise CheckpointError(f"{name} is not in the catalog; the names are {', '.join(OFFICIAL)}")
    weights = resolve(Checkpoint(checkpoint=name), OFFICIAL[name].kind)
    if OFFICIAL[name].kind == "detector":
        # A detector is of no use without its tokenizer, and the machine may be off the network later.
        tokenizer_folder(None, weights)
    return weights.path


def _look_up(kind: Kind, name: str) -> CatalogEntry:
    official = OFFICIAL.get(name)
    path, sha256, architecture = None, None, "bundled"
    problem: str | None = None
    try:
        weights = resolve(Checkpoint(checkpoint=name), kind, download=False)
        path, sha256 = weights.path, weights.sha256
    except (CheckpointError, VouchError) as error:
        # An official file that is not here is no problem.
        problem = None if "not on this machine" in str(error) else str(error)
    if official is not None:
        architecture, sha256 = official.architecture, official.sha256
    size = official.size if official is not None else path.stat().st_size if path is not None else None
    return CatalogEntry(
        kind=kind, name=name, architecture=architecture, bytes=size, sha256=sha256, path=path, problem=problem
    )
