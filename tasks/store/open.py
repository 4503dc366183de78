"""Opens the store that a location names, and checks what may be done with it and which format a workspace has."""

import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, ValidationError

from vouch_labels.schemas.campaign import Location, S3Options
from vouch_labels.schemas.errors import ObjectMissingError, StoreAccessError, StoreError, UserError
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.store import Store

CHECK = ".vouch-write-check"

FORMAT_FILE: Final = "workspace.json"
"""At the root of every workspace: the version of its format. The oldest workspaces have none, which is version 1."""
FORMAT: Final = 1
"""Version that is written. It goes up when an older Vouch would misread, or spoil, what a newer one writes."""
READ_FORMATS: Final = (1,)
"""Versions that are read."""


class WorkspaceFormat(BaseModel):
    """What workspace.json says; keys that a newer version adds are left alone."""

    format: int = Field(ge=1, strict=True, description="Version of the workspace's files and folders.")


def open_store(location: Location, base: Path | None = None) -> Store:
    """Open a folder or an s3:// location; nothing is read, written or created yet.

    Relative folders start from `base` (the folder of the campaign file), by default from the current one.

    Raises:
        UserError: The uri is neither a folder nor s3://bucket/prefix, or it carries credentials.
    """
    return open_uri(location.uri, location.s3, base)


def open_uri(uri: str, options: S3Options, base: Path | None = None) -> Store:
    """As open_store, for a bare uri."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if uri.startswith(("s3:", "S3:")):
            raise UserError("an S3 location is written s3://bucket/prefix; fix the uri")
        return LocalStore(Path(base or Path.cwd()) / Path(uri).expanduser())
    if scheme.lower() == "file":
        return LocalStore(Path("/" + rest.lstrip("/")))
    if scheme.lower() != "s3":
        raise UserError(f"{scheme}:// is not supported; use s3://bucket/prefix (with s3.endpoint_url) or a folder")
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise UserError("an s3:// uri carries no credentials and no port; set AWS_* variables and s3.endpoint_url")
    if not bucket:
        raise UserError(f"{uri} names no bucket; write s3://bucket/prefix")
    return S3Store(bucket, prefix.lstrip("/"), options)


def open_workspace(location: Location) -> Store:
    """Open a workspace that a command is about to read: one request says whether it can.

    Raises:
        UserError: A newer Vouch wrote it, or the uri cannot be used.
        StoreError: It cannot be read.
    """
    store = open_store(location)
    check_format(store)
    return store


def check_format(workspace: Store) -> bool:
    """Make sure that this Vouch reads the format of a workspace; one request.

    Returns:
        Whether the workspace states its format. A workspace that does not is new, or of version 1.

    Raises:
        UserError: It is none that this Vouch reads.
        StoreError: workspace.json is damaged or cannot be read.
    """
    place = f"{workspace.uri.rstrip('/')}/{FORMAT_FILE}"
    try:
        found = WorkspaceFormat.model_validate_json(workspace.get(FORMAT_FILE).data).format
    except ObjectMissingError:
        return False
    except ValidationError:
        raise StoreError(
            f'{place} is damaged; restore it, or put {{"format": {FORMAT}}} there if no newer Vouch has written to it'
        ) from None
    if found not in READ_FORMATS:
        known = " and ".join(map(str, READ_FORMATS))
        raise UserError(
            f"{place}: the workspace has format {found}, and this Vouch reads format {known}; "
            "install the Vouch that wrote it, or a newer one, or name another workspace"
        )
    return True


def write_format(workspace: Store) -> None:
    """Have a workspace say its format, unless another process has just done so.

    Raises:
        UserError: The other one is a newer Vouch.
        StoreError: workspace.json cannot be written.
    """
    content = WorkspaceFormat(format=FORMAT).model_dump_json().encode() + b"\n"
    if not workspace.put(FORMAT_FILE, content, if_absent=True):
        check_format(workspace)


def check_readable(store: Store) -> None:
    """Make sure that a store can be listed and read, with a request or two.

    Raises:
        StoreAccessError: In one line, what is wrong and what to do.
    """
    root = store.local_path("x")
    if root is not None:
        _check_folder(root.parent)
        return
    first = next(store.list(), None)
    if first is not None:
        store.stat(first.key)


def check_writable(store: Store) -> None:
    """Make sure that a store can be written, by writing a small object and removing it again.

    Raises:
        StoreAccessError: In one line, what is wrong and what to do.
        StoreError: No space is left.
    """
    store.put(CHECK, b"vouch")
    store.delete(CHECK)


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise StoreAccessError(f"the folder {folder} does not exist; check the uri")
    if not folder.is_dir():
        raise StoreAccessError(f"{folder} is a file, not a folder; name the folder, or use source.manifest for a list")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise StoreAccessError(f"cannot list {folder}: permission denied; check the owner and mode of the folder")
