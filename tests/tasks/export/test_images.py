"""Copies and links of the images."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from vouch_labels.schemas.errors import StoreError, UserError
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
        assert place_images(of(keys), source, target, "e", how, threads=2, progress=steps.append) == []
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
    assert place_images(of(keys), stores["source"], stores["target"], "e", "copy") == []


@pytest.mark.parametrize("how", ["copy", "link"])
def test_a_missing_image_is_told_and_the_others_are_placed(tmp_path, keys, how):
    source, target = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target")
    missed = place_images(of(["gone.png", *keys]), source, target, "e", how)
    assert [(entry.key, entry.reason) for entry in missed] == [("gone.png", "gone from the source")]
    assert len(list(target.list())) == len(keys)


def test_a_copy_is_compared_with_what_was_labelled(tmp_path, keys):
    digest = hashlib.sha256(keys[0].encode()).hexdigest()
    source, target = LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target")
    missed = place_images(of(keys[:2], sha256=digest), source, target, "e", "copy")
    assert [entry.key for entry in missed] == [keys[1]]
    assert "changed" in missed[0].reason
    assert [info.key for info in target.list()] == ["e/images/a.png"]


def test_a_link_that_cannot_be_made_says_what_else_to_do(tmp_path, keys):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "e").write_text("a file where a folder is needed")
    with pytest.raises(StoreError, match=r"use export\.images: copy"):
        place_images(of(keys), LocalStore(tmp_path / "source"), LocalStore(tmp_path / "target"), "e", "link")


@pytest.mark.parametrize("key", ["a//b.png", "../b.png", "/b.png"])
def test_a_key_that_is_no_path_costs_that_image_alone(tmp_path, keys, key):
    class Bucket(Remote):
        def get(self, key: str) -> Blob:
            return Blob(key.encode(), "x")

    target = LocalStore(tmp_path / "target")
    missed = place_images(of([key, *keys]), Bucket(tmp_path / "source"), target, "e", "copy")
    assert missed == [(key, "its key names no file below a folder")]
    assert len(list(target.list("e/images/"))) == len(keys)
