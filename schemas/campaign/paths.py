"""Makes the local paths of a campaign independent of the folder that it is run from."""

from pathlib import Path
from typing import Final

from schemas.campaign.campaign import Campaign
from schemas.errors import UserError

_MODELS: Final = ("detector", "segmenter", "scorer")
_FILES: Final = ("checkpoint", "architecture", "text_encoder")


def resolve_paths(campaign: Campaign, folder: Path) -> Campaign:
    """Make local paths absolute.

    A checkpoint, architecture or text encoder may be a name as well as a path: it is taken as a path where it
    starts with `.`, `~` or `/`, or where such a file lies in the folder.

    Args:
        campaign: As the file says.
        folder: What its relative paths are relative to.

    Returns:
        A copy.

    Raises:
        UserError: A path names the home of an unknown user, or holds a NUL.
    """
    source = campaign.source.model_copy(
        update={
            "uri": _local(campaign.source.uri, folder),
            "manifest": campaign.source.manifest and _local(campaign.source.manifest, folder),
        }
    )
    workspace = campaign.workspace.model_copy(update={"uri": _local(campaign.workspace.uri, folder)})
    models = {}
    for name in _MODELS:
        config = getattr(campaign.models, name)
        given = {key: getattr(config, key, None) for key in _FILES}
        files = {key: _file_or_name(value, folder) for key, value in given.items() if value is not None}
        models[name] = config.model_copy(update=files)
    return campaign.model_copy(
        update={"source": source, "workspace": workspace, "models": campaign.models.model_copy(update=models)}
    )


def _local(uri: str, folder: Path) -> str:
    # "s3:bucket" is a slip that the store words better than a folder of that name.
    if "://" in uri or uri.lower().startswith("s3:"):
        return uri
    try:
        return str((folder / Path(uri).expanduser()).resolve())
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{uri!r} is no usable path ({error}); mend it in the campaign") from None


def _file_or_name(value: str, folder: Path) -> str:
    if "://" in value or not (value.startswith((".", "~", "/")) or _exists(folder / value)):
        return value
    return _local(value, folder)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name longer than a file's may be
        return False
