"""Files of the model hub, kept in the hub client's own cache."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import CheckpointError, VouchError


def hub_file(repository: str, revision: str | None, path: str, where: str, download: bool) -> Path:
    """Path of a hub file on this machine.

    Args:
        repository: owner/name.
        revision: Branch, tag or commit; None: the main branch.
        path: File inside the repository.
        where: What asked for it, for messages ("models.detector.checkpoint").
        download: Whether to fetch what is not here yet; the hub client's offline switch is honoured.

    Raises:
        CheckpointError: The file, revision or repository does not exist, is closed to this user, or is not here and
            cannot be fetched now.
        VouchError: The disk is full or cannot be written.
    """
    from huggingface_hub import hf_hub_download

    with _in_one_line(f"{_name(repository, revision)}/{path}", where, download):
        return Path(hf_hub_download(repository, path, revision=revision, local_files_only=not download))


def hub_folder(
    repository: str, revision: str | None, patterns: Sequence[str], where: str, download: bool = True
) -> Path:
    """Folder on this machine with the files of a hub repository that match one of the patterns.

    Args:
        repository: owner/name.
        revision: Branch, tag or commit; None: the main branch.
        patterns: Globs such as *.json.
        where: What asked for it, for messages.
        download: Whether to fetch what is not here yet.

    Raises:
        CheckpointError: As `hub_file`.
        VouchError: As `hub_file`.
    """
    from huggingface_hub import snapshot_download

    with _in_one_line(_name(repository, revision), where, download):
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns), local_files_only=not download
            )
        )


def _name(repository: str, revision: str | None) -> str:
    return f"hf://{repository}{'@' + revision if revision else ''}"


@contextmanager
def _in_one_line(name: str, where: str, download: bool) -> Iterator[None]:
    """Say in the project's words what the hub client reports."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(f"{where}: {name} asks for accepted terms; accept them and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(f"{where}: {name}: no such repository, or it is private: set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{where}: {name}: no such revision; check the part after '@'") from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{where}: {name}: no such file in the repository; check its path") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{where}: {name} is no hub reference; write hf://owner/repo[@revision]/file") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CheckpointError(_absent(where, name, download)) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise CheckpointError(f"{where}: {name}: the hub answered {status}; try again or use a local path") from error
    except OSError as error:
        raise VouchError(f"{where}: cannot keep {name}: {error.strerror or error}; make room or set HF_HOME") from error


def _absent(where: str, name: str, download: bool) -> str:
    if download:
        return f"{where}: {name} is not on this machine and the hub cannot be reached; give the path of a local copy"
    return f"{where}: {name} is not on this machine yet; fetch it with `vouch models pull`, or give a local path"
