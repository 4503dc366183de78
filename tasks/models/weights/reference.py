"""References to checkpoints that users write: paths, s3:// and hf://."""

import difflib
from pathlib import Path

from schemas.errors import CheckpointError
from tasks.models.weights.bucket import bucket_file
from tasks.models.weights.hub import hub_file
from tasks.models.weights.official import OFFICIAL, Kind


def file_of_reference(reference: str, kind: Kind, where: str, download: bool) -> Path:
    """The file on this machine that a path, s3://bucket/key or hf://owner/repo[@revision]/file stands for.

    Args:
        reference: As the user wrote it.
        kind: For suggestions.
        where: What asked for it, for messages.
        download: Whether to fetch what is not here yet.

    Raises:
        CheckpointError: The reference is not understood, or the file is missing or unreachable.
        VouchError: The cache cannot be written.
    """
    if reference.startswith("s3://"):
        return bucket_file(reference, where, download)
    if reference.startswith("hf://"):
        repository, revision, inside = split_hub_reference(reference, where)
        if not inside:
            raise CheckpointError(f"{where}: {reference} names no file; write hf://owner/repo[@revision]/file")
        return hub_file(repository, revision, inside, where, download)
    scheme, separator, _ = reference.partition("://")
    if separator:
        raise CheckpointError(
            f"{where}: {scheme}:// is not understood; use a path, s3://bucket/key or hf://owner/repo/file"
        )
    path = Path(reference).expanduser()
    if path.is_dir():
        raise CheckpointError(f"{where}: {reference} is a folder; name the file in it")
    if not path.is_file():
        raise CheckpointError(f"{where}: no file {reference}; {_suggestion(reference, kind)}")
    return path


def split_hub_reference(reference: str, where: str) -> tuple[str, str | None, str]:
    """Take hf://owner/repo[@revision][/file] apart into repository, revision and file ('' when none is named).

    Raises:
        CheckpointError: Owner or repository is missing.
    """
    owner, _, rest = reference.removeprefix("hf://").partition("/")
    name, _, inside = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise CheckpointError(f"{where}: {reference} is no hub reference; write hf://owner/repo[@revision]/file")
    return f"{owner}/{name}", revision or None, inside


def names_of(kind: Kind) -> list[str]:
    """What `checkpoint` may be by name for a kind of model."""
    return ["starter", *(name for name, official in OFFICIAL.items() if official.kind == kind)]


def _suggestion(reference: str, kind: Kind) -> str:
    names = names_of(kind)
    near = difflib.get_close_matches(reference, names, n=1)
    return f"did you mean {near[0]}?" if near else f"give a path that exists, or one of {', '.join(names)}"
