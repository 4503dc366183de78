"""What a full disk does to a file that is being written."""

import json
import tempfile
from pathlib import Path

import pytest

from schemas.errors import VouchError
from tasks.export.document import open_document
from tasks.store.local import LocalStore

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("count", [1, 50_000])
def test_no_room_for_temporary_files_says_what_to_do(tmp_path, monkeypatch, count):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: FULL.open("r+b", buffering=buffering))
    with pytest.raises(VouchError, match="free some space or set TMPDIR"):
        write(LocalStore(tmp_path), count)
    assert list(LocalStore(tmp_path).list()) == []


def test_a_missing_folder_for_temporary_files_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(VouchError, match="set TMPDIR"):
        write(LocalStore(tmp_path / "store"), 1)


def write(store, count):
    with open_document(store, "a.json", {"info": {}}, {"categories": []}) as document:
        for _ in range(count):
            document.add("{}", ["{}" * 20])


def test_members_come_in_the_order_given(tmp_path):
    store = LocalStore(tmp_path)
    with open_document(store, "a.json", {"first": 1, "second": [2]}, {"last": 3}) as document:
        document.add('{"id": 1}', ['{"id": 1}', '{"id": 2}'])
        document.add('{"id": 2}', [])
        document.add('{"id": 3}', ['{"id": 3}'])
    found = json.loads((tmp_path / "a.json").read_text())
    assert list(found) == ["first", "second", "images", "annotations", "last"]
    assert [entry["id"] for entry in found["images"]] == [1, 2, 3]
    assert [entry["id"] for entry in found["annotations"]] == [1, 2, 3]
    assert (document.images, document.annotations) == (3, 3)
