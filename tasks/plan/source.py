"""Lists the images of a campaign's source, from a listing or from its manifest."""

from collections.abc import Iterator
from pathlib import Path

from schemas.campaign import Location, Source
from schemas.errors import UserError
from schemas.records import ImageRef
from tasks.store.filter import compile_filter
from tasks.store.manifest import read_manifest
from tasks.store.store import Store


def list_source(
    source: Source, store: Store, base: Path | None = None, workspace: Location | None = None
) -> Iterator[ImageRef]:
    """Yield the images that a source names, a page in memory at a time.

    A manifest stands for itself: only globs that the campaign spells out are applied to it, not the default ones.
    What a manifest leaves out (etag, size) is looked up where that is cheap, in a folder; for S3 it stays unknown.
    A workspace below the source is left out of a listing, or the images of its exports would be labelled again.

    Args:
        source: The campaign's source.
        store: The store that it names, opened.
        base: Folder of the campaign file, from which a relative manifest starts.
        workspace: The campaign's workspace, its uri as absolute as the source's.

    Raises:
        UserError: The manifest cannot be read, or a source that is listed is the workspace itself.
        StoreAccessError: The source cannot be listed.
    """
    if source.manifest is None:
        takes = compile_filter(source.include, source.exclude)
        own = _folder_of(workspace, source)
        yield from (ImageRef(*info) for info in store.list() if takes(info.key) and not info.key.startswith(own))
        return
    takes = compile_filter(source.include if "include" in source.model_fields_set else ("**",), source.exclude)
    is_folder = store.local_path("x") is not None
    refs = read_manifest(source.manifest, source.s3, base=base, source=store, look_up=is_folder)
    yield from (ref for ref in refs if takes(ref.key))


def _folder_of(workspace: Location | None, source: Source) -> tuple[str, ...]:
    """Prefix of the keys that are the workspace's own, with its last slash; none where it lies elsewhere."""
    if workspace is None or workspace.s3.endpoint_url != source.s3.endpoint_url:
        return ()
    root, folder = (f"{place.uri.rstrip('/')}/" for place in (source, workspace))
    if folder == root:
        raise UserError(f"source and workspace are both {source.uri}; use another workspace, or a folder below it")
    return (folder.removeprefix(root),) if folder.startswith(root) else ()
