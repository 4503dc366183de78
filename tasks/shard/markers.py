"""Reads and writes the markers that say what is done."""

from pydantic import ValidationError

from schemas.errors import ObjectMissingError, StoreError
from schemas.records import Current, Marker
from tasks.shard.layout import current_key, done_folder, marker_key
from tasks.store.store import Store


def write_marker(store: Store, run: str, marker: Marker) -> Marker:
    """Write a marker unless the shard has one under these settings; return the one that counts.

    Of two workers that finish a shard at once, both get the marker of the first.
    """
    key = marker_key(run, marker.shard, marker.fingerprint)
    if store.put(key, marker.model_dump_json(indent=1).encode(), if_absent=True):
        return marker
    return _parse(store, key)


def read_marker(store: Store, run: str, shard: str, fingerprint: str) -> Marker | None:
    """Read the marker of a shard under some settings; None while it is not done.

    Raises:
        StoreError: The marker cannot be read.
    """
    try:
        return _parse(store, marker_key(run, shard, fingerprint))
    except ObjectMissingError:
        return None


def markers_of(store: Store, run: str, shard: str) -> list[Marker]:
    """Read the markers of a shard under all settings, in the order of their fingerprints."""
    return [_parse(store, info.key) for info in store.list(f"{done_folder(run)}{shard}/")]


def shards_done(store: Store, run: str, fingerprint: str) -> set[str]:
    """List the ids of the shards that are done under some settings; one listing, no reads."""
    folder, name = done_folder(run), f"{fingerprint}.json"
    places = (info.key.removeprefix(folder).partition("/") for info in store.list(folder))
    return {shard for shard, _, file in places if file == name}


def read_current(store: Store, run: str) -> Current | None:
    """Read which settings a run used last; None before its first."""
    try:
        return Current.model_validate_json(store.get(current_key(run)).data)
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(f"{store.uri}/{current_key(run)} is damaged; run `vouch run` to write it anew") from None


def write_current(store: Store, run: str, current: Current) -> None:
    """Say which settings a run uses from now on."""
    store.put(current_key(run), current.model_dump_json(indent=1).encode())


def _parse(store: Store, key: str) -> Marker:
    try:
        return Marker.model_validate_json(store.get(key).data)
    except ValidationError:
        raise StoreError(f"{store.uri}/{key} is damaged; delete it, and the shard is worked off again") from None
