"""Copies and links of the images."""

import errno
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from vouch_labels.schemas.errors import ObjectRefusedError, StoreAccessError, StoreError, UserError
from vouch_labels.tasks.export.images import place_images
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.store import Blob


class Remote(LocalStore):
    """A store whose objects lie on no disk of this machine."""

    def local_path(self, key: str) -> Path | None:
        return None


@pytest.fixture
def keys(tmp_path: Path) -> list[str]:
    names = ["a.png", "deep/er/b.png", "c ü.png"]
    for name in names:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return names


def of(keys: list[str], **fields: Any) -> list[ExportImage]:
    return [ExportImage(key, 1, 1, [], **fields) for key in keys]


@pytest.mark.parametrize("how", ["copy", "link"])
def test_every_image_lies_beside_the_annotations(tmp_path, keys, how):
    source, target = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target")
    steps: list[int] = []
    for _ in range(2):
        assert place_images(of(keys), source, target, "e", how, threads=2, progress=steps.append) == {}
    for key in keys:
        placed = tmp_path / "target" / "e" / "images" / key
        assert placed.read_bytes() == key.encode()
        assert placed.samefile(tmp_path / "source" / key) == (how == "link")
    assert sum(steps) == 2 * len(keys)


def test_a_stale_file_is_replaced_by_the_link(tmp_path, keys):
    stale = tmp_path / "target" / "e" / "images" / keys[0]
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    place_images(of(keys), LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", "link")
    assert stale.read_bytes() == keys[0].encode()


def test_links_are_symbolic_where_hard_ones_cannot_be(tmp_path, keys, monkeypatch):
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    place_images(of(keys), LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", "link")
    placed = tmp_path / "target" / "e" / "images" / keys[1]
    assert placed.is_symlink()
    assert placed.read_bytes() == keys[1].encode()


@pytest.mark.parametrize("remote", ["source", "target"])
def test_links_need_folders(tmp_path, keys, remote):
    stores = {name: LocalStore(tmp_path / name) for name in ("source", "target")}
    stores[remote] = Remote(tmp_path / remote)
    with pytest.raises(UserError, match="use copy"):
        place_images(of(keys), stores["source"], stores["target"], "e", "link")
    assert place_images(of(keys), stores["source"], stores["target"], "e", "copy") == {}


@pytest.mark.parametrize("how", ["copy", "link"])
def test_a_missing_image_is_told_and_the_others_are_placed(tmp_path, keys, how):
    source, target = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target")
    missed = place_images(of(["gone.png", *keys]), source, target, "e", how)
    assert missed == {"gone.png": "gone from the source"}
    assert len(list(target.list())) == len(keys)


def test_a_copy_is_compared_with_what_was_labelled(tmp_path, keys):
    digest = hashlib.sha256(keys[0].encode()).hexdigest()
    source, target = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target")
    missed = place_images(of(keys[:2], sha256=digest), source, target, "e", "copy")
    assert missed == {keys[1]: "changed since it was labelled; run again"}
    assert [info.key for info in target.list()] == ["e/images/a.png"]


@pytest.mark.parametrize("how", ["copy", "link"])
def test_a_folder_that_cannot_be_made_is_no_fault_of_an_image(tmp_path, keys, how):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "e").write_text("a file where a folder is needed")
    with pytest.raises(StoreAccessError, match="a file stands where a folder is needed"):
        place_images(of(keys), LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", how)


class Bucket(Remote):
    """A bucket that has every key, each with its name as content."""

    def get(self, key: str) -> Blob:
        return Blob(key.encode(), "x")


@pytest.mark.parametrize("key", [f"{'n' * 256}.png", f"deep/{'ü' * 130}.png", "/".join(["d" * 200] * 30)])
def test_a_name_that_is_too_long_costs_that_image_alone(tmp_path, keys, key):
    target = LocalStore(tmp_path / "target")
    missed = place_images(of([key, *keys]), Bucket(tmp_path / "source"), target, "e", "copy")
    assert missed == {key: "its name is longer than the file system takes"}
    assert [info.key for info in target.list()] == sorted(f"e/images/{name}" for name in keys)


def test_a_key_that_would_be_too_long_for_a_bucket_costs_that_image_alone(tmp_path, keys):
    class Target(Remote):
        uri = "s3://bucket/labels"

        def __init__(self, root: Path) -> None:
            self.root, self._swept, self.put_keys = root, set(), []

        def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
            self.put_keys.append(key)
            return True

    fits, long = "k" * (1024 - len("labels/e/images/")), "k" * (1025 - len("labels/e/images/"))
    target = Target(tmp_path)
    missed = place_images(of([fits, long]), Bucket(tmp_path), target, "e", "copy", threads=1)
    assert missed == {long: "its key would be longer than 1,024 bytes there"}
    assert target.put_keys == [f"e/images/{fits}"]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (errno.EINVAL, "its name has a character that the file system refuses"),
        (errno.EILSEQ, "its name has a character that the file system refuses"),
        (errno.EACCES, "permission denied"),
        (errno.ENAMETOOLONG, "its name is longer than the file system takes"),
    ],
)
@pytest.mark.parametrize("how", ["copy", "link"])
def test_a_name_that_the_target_refuses_costs_that_image_alone(tmp_path, keys, monkeypatch, how, refused, reason):
    replace, link = Path.replace, os.link

    def refuse(target: Any) -> None:
        if str(target).endswith(keys[0]):
            raise OSError(refused, os.strerror(refused), str(target))

    def replacing(self: Path, target: Any) -> Path:
        refuse(target)
        return replace(self, target)

    def linking(origin: Any, target: Any) -> None:
        refuse(target)
        link(origin, target)

    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(os, "link", linking)
    monkeypatch.setattr(Path, "symlink_to", lambda self, _: refuse(self))
    missed = place_images(of(keys), LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", how)
    assert missed == {keys[0]: reason}


@pytest.mark.parametrize("how", ["copy", "link"])
def test_a_full_disk_is_no_fault_of_an_image(tmp_path, keys, monkeypatch, how):
    real = os.link if how == "link" else Path.replace

    def full(one: Any, target: Any) -> Any:
        if str(target).endswith(keys[0]):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real(one, target)

    monkeypatch.setattr(*((os, "link") if how == "link" else (Path, "replace")), full)
    with pytest.raises(StoreError, match=r"(?i)no space left"):
        place_images(of(keys), LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", how)


def test_a_key_that_is_the_folder_of_another_costs_one_of_them(tmp_path):
    target = LocalStore(tmp_path / "target")
    missed = place_images(of(["a", "a/b.png", "c.png"]), Bucket(tmp_path), target, "e", "copy", threads=1)
    assert missed == {"a/b.png": "a file has the name of its folder"}
    missed = place_images(of(["c.png/d", "a"]), Bucket(tmp_path), target, "e2", "copy", threads=1)
    assert missed == {}
    missed = place_images(of(["c.png", "a"]), Bucket(tmp_path), target, "e2", "copy", threads=1)
    assert missed == {"c.png": "a folder has its name"}


def test_names_that_are_one_to_the_target_do_not_replace_each_other(tmp_path):
    class Caseless(LocalStore):
        """A file system that minds neither case nor composition."""

        def _path(self, key: str) -> Path:
            return super()._path(unicodedata.normalize("NFD", key).lower())

    names = ["A/x.png", "a/X.png", "caf\u00e9.png", "cafe\u0301.png", "z.png"]
    target = Caseless(tmp_path / "target")
    for _ in range(2):
        missed = place_images(of(names), Bucket(tmp_path), target, "e", "copy")
        assert missed == {
            names[1]: "the file system takes its name for that of A/x.png",
            names[3]: "the file system takes its name for that of caf\u00e9.png",
        }
    assert target.get("e/images/a/x.png").data == b"A/x.png"
    assert place_images(of(names), Bucket(tmp_path), LocalStore(tmp_path / "other"), "e", "copy") == {}


def test_an_image_that_may_not_be_read_costs_that_image_alone(tmp_path, keys, monkeypatch):
    class Source(LocalStore):
        def get(self, key: str) -> Blob:
            if key == keys[1]:
                raise ObjectRefusedError("denied")
            return super().get(key)

    real = Path.open

    def closed(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == tmp_path / "source" / keys[0]:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    missed = place_images(of(keys), Source(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", "copy")
    assert missed == {
        keys[0]: "it cannot be read: permission denied", keys[1]: "the source refuses access to it",
    }  # fmt: skip


@pytest.mark.parametrize("how", ["copy", "link"])
def test_where_no_image_can_be_put_the_export_fails(tmp_path, how):
    stores = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target")
    with pytest.raises(StoreError, match=r"none of 2 images could be put into .*/e: gone from the source"):
        place_images(of(["a.png", "b.png"]), *stores, "e", how)
    assert place_images([], *stores, "e", how) == {}


@pytest.mark.parametrize("key", ["a//b.png", "../b.png", "/b.png"])
def test_a_key_that_is_no_path_costs_that_image_alone(tmp_path, keys, key):
    target = LocalStore(tmp_path / "target")
    missed = place_images(of([key, *keys]), Bucket(tmp_path / "source"), target, "e", "copy")
    assert missed == {key: "its key names no file below a folder"}
    assert len(list(target.list("e/images/"))) == len(keys)
