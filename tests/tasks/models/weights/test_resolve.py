import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from schemas.errors import CheckpointError
from tasks.models.weights import official, resolve
from tasks.models.weights.digest import sha256_of
from tasks.models.weights.official import OFFICIAL


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "starter"
    folder.mkdir()
    (folder / "detector.safetensors").write_bytes(b"weights")
    (folder / "detector.json").write_text("{}")
    (folder / "checksums.json").write_text(json.dumps({"detector.safetensors": sha(b"weights")}))
    monkeypatch.setattr(resolve, "STARTER", folder)
    return folder


def test_starter_is_pinned_and_brings_its_architecture(starter: Path) -> None:
    weights = resolve.resolve(DetectorConfig(), "detector")
    assert weights.path == starter / "detector.safetensors"
    assert weights.sha256 == sha(b"weights")
    assert weights.architecture == starter / "detector.json"
    assert weights.source == "starter"


def test_changed_starter_is_refused_with_both_hashes(starter: Path) -> None:
    (starter / "detector.safetensors").write_bytes(b"changed")
    with pytest.raises(CheckpointError) as raised:
        resolve.resolve(DetectorConfig(), "detector")
    message = str(raised.value)
    assert sha(b"changed") in message
    assert sha(b"weights") in message
    assert "\n" not in message


def test_unpinned_or_missing_starter_says_to_install_again(starter: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not pin segmenter\.safetensors; install again"):
        resolve.resolve(SegmenterConfig(), "segmenter")
    (starter / "detector.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing; install again"):
        resolve.resolve(DetectorConfig(), "detector")


def test_path_with_its_pin_and_architecture(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    described = tmp_path / "a.json"
    described.write_text("{}")
    config = DetectorConfig(checkpoint=str(path), sha256=sha(b"abc"), architecture=str(described))
    weights = resolve.resolve(config, "detector")
    assert (weights.path, weights.architecture) == (path, described)
    assert resolve.resolve(DetectorConfig(checkpoint=str(path)), "detector").architecture is None
    with pytest.raises(CheckpointError, match="not " + "0" * 64):
        resolve.resolve(DetectorConfig(checkpoint=str(path), sha256="0" * 64), "detector")
    with pytest.raises(CheckpointError, match=r"models\.detector\.architecture: no file"):
        resolve.resolve(DetectorConfig(checkpoint=str(path), architecture=str(tmp_path / "none.json")), "detector")


def test_official_file_put_by_hand_is_verified(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = OFFICIAL["sam_vit_b"]
    path = cache / "checkpoints" / "sam_vit_b_01ec64.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not it")
    with pytest.raises(CheckpointError, match=known.sha256):
        resolve.resolve(SegmenterConfig(checkpoint="sam_vit_b"), "segmenter")
    monkeypatch.setitem(OFFICIAL, "sam_vit_b", dataclasses.replace(known, sha256=sha(b"not it")))
    weights = resolve.resolve(SegmenterConfig(checkpoint="sam_vit_b"), "segmenter")
    assert (weights.path, weights.architecture) == (path, "vit_b")


def test_official_file_under_another_name_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"bytes")
    entry = dataclasses.replace(OFFICIAL["groundingdino_swinb_cogcoor"], sha256=sha(b"bytes"))
    monkeypatch.setitem(official.OFFICIAL, "groundingdino_swinb_cogcoor", entry)
    assert resolve.resolve(DetectorConfig(checkpoint=str(path)), "detector").architecture == "swin_b"
    assert resolve.resolve(SegmenterConfig(checkpoint=str(path)), "segmenter").architecture is None


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("groundingdino_swint_ocg", "did you mean groundingdino_swint_ogc"),
        ("no/such/file.pth", "give a path that exists, or one of starter, groundingdino_swint_ogc"),
        ("sam_vit_h", "sam_vit_h is a segmenter; use one of starter, groundingdino"),
        ("ftp://host/file", "ftp:// is not understood"),
        ("s3://bucket", "names no file; write s3://bucket/key"),
        ("s3://bucket/folder/", "names no file; write s3://bucket/key"),
        ("hf://owner/repo", "names no file; write hf://owner/repo"),
        ("hf://owner", "is no hub reference"),
        ("hf://ow--ner/re..po/file", "is no hub reference"),
        ("/tmp", "is a folder; name the file in it"),
    ],
)
def test_bad_references_get_one_line(reference: str, said: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        resolve.resolve(DetectorConfig(checkpoint=reference), "detector")
    assert said in str(raised.value)
    assert str(raised.value).startswith("models.detector.checkpoint: ")
    assert "\n" not in str(raised.value)


def test_scorer_has_no_official_names() -> None:
    with pytest.raises(CheckpointError, match=r"use one of starter$"):
        resolve.resolve(ScorerConfig(checkpoint="sam_vit_b"), "scorer")


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1_000_000_000))
    assert sha256_of(path) == sha(b"one")
    note = next((cache / "sha256").iterdir())
    record = json.loads(note.read_text())
    note.write_text(json.dumps({**record, "sha256": "remembered"}))
    assert sha256_of(path) == "remembered"
    path.write_bytes(b"two")
    assert sha256_of(path) == sha(b"two")
    note.write_text("{broken")
    assert sha256_of(path) == sha(b"two")


def test_hash_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_bytes(b"")
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "plain" / "below"))
    assert sha256_of(tmp_path / "plain") == sha(b"")


def test_hash_of_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        sha256_of(tmp_path / "gone")


def test_official_table_is_well_formed() -> None:
    for entry in OFFICIAL.values():
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.size > 3e8
    assert len({entry.sha256 for entry in OFFICIAL.values()}) == len(OFFICIAL)
