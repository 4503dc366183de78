from pathlib import Path

import pytest

from schemas.campaign import Source, Workspace
from schemas.errors import UserError
from tasks.plan.source import list_source
from tasks.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "images")
    for key in ("b.PNG", "a/1.jpg", "a/2.jpg", "a/notes.txt", "thumbs/1.jpg"):
        store.put(key, key.encode())
    return store


def keys(store: LocalStore, base: Path | None = None, **more: object) -> list[str]:
    source = Source.model_validate({"uri": store.uri} | more)
    refs = list(list_source(source, store, base))
    for ref in refs:
        info = store.stat(ref.key)
        assert info is None or ref == info
    return [ref.key for ref in refs]


def test_a_listing_takes_what_the_globs_say(store: LocalStore) -> None:
    assert keys(store) == ["a/1.jpg", "a/2.jpg", "b.PNG", "thumbs/1.jpg"]
    assert keys(store, exclude=["thumbs/**"]) == ["a/1.jpg", "a/2.jpg", "b.PNG"]
    assert keys(store, include=["a/*"]) == ["a/1.jpg", "a/2.jpg", "a/notes.txt"]


def test_a_manifest_stands_for_itself(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("thumbs/1.jpg\na/notes.txt\nmissing.jpg\na/1.jpg\n")
    names = ["thumbs/1.jpg", "a/notes.txt", "missing.jpg", "a/1.jpg"]
    assert keys(store, tmp_path, manifest="m.txt") == names
    assert keys(store, tmp_path, manifest="m.txt", exclude=["thumbs/**"]) == names[1:]
    assert keys(store, tmp_path, manifest="m.txt", include=["a/*"]) == ["a/notes.txt", "a/1.jpg"]
    with pytest.raises(UserError, match="does not exist"):
        keys(store, tmp_path, manifest="other.txt")


def test_a_workspace_below_the_source_is_no_source_of_images(store: LocalStore) -> None:
    def listed(uri: str, workspace: str, **more: object) -> list[str]:
        source = Source.model_validate({"uri": uri} | more)
        return [ref.key for ref in list_source(source, store, workspace=Workspace(uri=workspace))]

    every = ["a/1.jpg", "a/2.jpg", "b.PNG", "thumbs/1.jpg"]
    assert listed(store.uri, f"{store.uri}/thumbs") == every[:3]
    assert listed(store.uri, f"{store.uri}/a/") == every[2:]
    assert listed(store.uri, f"{store.uri}/thu") == every
    assert listed("s3://bucket/in", "s3://bucket/in/a") == every[2:]
    assert listed("s3://bucket/in", "s3://bucket/in/a", s3={"endpoint_url": "http://other"}) == every
    with pytest.raises(UserError, match="source and workspace are both"):
        listed(store.uri, f"{store.uri}/")
