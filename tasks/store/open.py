"""Opens the store that a location names, and checks what may be done with it."""

import os
from pathlib import Path

from vouch_labels.schemas.campaign import Location, S3Options
from vouch_labels.schemas.errors import StoreAccessError, UserError
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.store import Store

CHECK = ".vouch-write-check"


def open_store(location: Location, base: Path | None = None) -> Store:
    """Open a folder or an s3:// location; nothing is read, written or created yet.

    Args:
        location: Uri and S3 options.
        base: Folder that relative folders start from (that of the campaign file); the current one by default.

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
