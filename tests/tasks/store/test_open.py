import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ordinary_user import folder_of_an_ordinary_user
from vouch_labels.schemas.campaign import Location, S3Options
from vouch_labels.schemas.errors import StoreAccessError, UserError
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import check_readable, check_writable, open_store
from vouch_labels.tasks.store.s3 import S3Store


def location(uri: str) -> Location:
    return Location.model_validate(uri)


def test_a_relative_folder_starts_from_the_campaign_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store(location("images"), tmp_path).uri == str(tmp_path / "images")
    assert open_store(location("/images/"), tmp_path).uri == "/images"
    assert open_store(location(f"file://{tmp_path}/x")).uri == str(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    assert open_store(location("images")).uri == str(tmp_path / "images")
    assert open_store(location("images"), Path("sub")).uri == str(tmp_path / "sub/images")
    monkeypatch.setenv("HOME", "/home/someone")
    assert open_store(location("~/images"), tmp_path).uri == "/home/someone/images"


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix", "shown"),
    [
        ("s3://b", "b", "", "s3://b"),
        ("s3://b/", "b", "", "s3://b"),
        ("s3://b/x/y", "b", "x/y/", "s3://b/x/y"),
        ("S3://b//x/y/", "b", "x/y/", "s3://b/x/y"),
        ("s3://b/x?y#z%20", "b", "x?y#z%20/", "s3://b/x?y#z%20"),
    ],
)
def test_an_s3_uri_is_a_bucket_and_a_folder_in_it(uri: str, bucket: str, prefix: str, shown: str) -> None:
    store = open_store(location(uri))
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.uri) == (bucket, prefix, shown)
    assert store.local_path("x") is None


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("s3:bucket/x", "written s3://bucket/prefix"),
        ("s3:/bucket/x", "written s3://bucket/prefix"),
        ("s3:///x", "names no bucket"),
        ("s3://KEY:SECRET@bucket/x", "carries no credentials"),
        ("s3://host:9000/bucket", "no port"),
        ("gs://bucket/x", "gs:// is not supported"),
        ("https://KEY:SECRET@host/bucket?token=SECRET", "https:// is not supported"),
    ],
)
def test_a_wrong_uri_is_explained_without_its_secrets(uri: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        open_store(location(uri))
    assert "SECRET" not in str(raised.value)


def test_a_folder_that_cannot_be_read_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreAccessError, match="does not exist; check the uri"):
        check_readable(LocalStore(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAccessError, match="is a file, not a folder"):
        check_readable(LocalStore(tmp_path / "file"))
    check_readable(LocalStore(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreAccessError, match="permission denied; check the owner"):
        check_readable(LocalStore(tmp_path))


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAccessError, match="a file stands where a folder is needed"):
        check_writable(LocalStore(tmp_path / "file"))
    with pytest.raises(StoreAccessError, match="a file stands where a folder is needed"):
        check_writable(LocalStore(tmp_path / "file" / "below"))
    # Even root may not create folders here.
    with pytest.raises(StoreAccessError, match=r"cannot write /proc/vouch/.*: the folder cannot be created; check"):
        check_writable(LocalStore(Path("/proc/vouch")))
    with pytest.raises(
        StoreAccessError, match=r"cannot write /proc/vouch/below/.*: the folder cannot be created; check"
    ):
        check_writable(LocalStore(Path("/proc/vouch/below")))


def test_a_user_without_rights_is_told_so() -> None:
    with folder_of_an_ordinary_user() as folder:
        store = LocalStore(folder / "private")
        store.put("x", b"1")
        store.root.chmod(0)
        actions: list[Callable[[], object]] = [
            lambda: check_readable(store),
            lambda: check_writable(store),
            lambda: next(store.list()),
            lambda: store.get("x"),
            lambda: store.stat("x"),
            lambda: store.delete("x"),
            lambda: store.put("y", b"", if_absent=True),
            lambda: store.put("y", b""),
            lambda: store.open_reader("x").__enter__(),
        ]
        for action in actions:
            with pytest.raises(StoreAccessError, match="permission denied; check the owner and mode"):
                action()
        store.root.chmod(0o700)


def test_a_bucket_that_cannot_be_used_is_explained(s3_store: S3Store) -> None:
    missing = S3Store("vouch-no-such-bucket", "x", s3_store.options)
    for check in (check_readable, check_writable):
        with pytest.raises(StoreAccessError, match=r"vouch-no-such-bucket.* bucket does not exist; check the name"):
            check(missing)


def test_options_are_part_of_the_location() -> None:
    options = {"endpoint_url": "http://127.0.0.1:1", "threads": 3}
    store = open_store(Location.model_validate({"uri": "s3://b", "s3": options}))
    assert isinstance(store, S3Store)
    assert store.options == S3Options.model_validate(options)
