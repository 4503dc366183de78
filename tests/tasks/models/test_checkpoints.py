"""Weights: found, fetched, checked, read."""

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import threading
from argparse import Namespace
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import huggingface_hub.constants
import pytest
import torch
from moto.server import ThreadedMotoServer
from safetensors.torch import save_file
from torch import nn

from vouch_labels.schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from vouch_labels.schemas.errors import CheckpointError, VouchError
from vouch_labels.tasks.models import checkpoints
from vouch_labels.tasks.models.checkpoints import OFFICIAL, Weights, resolve, sha256_of, tokenizer_folder
from vouch_labels.tasks.models.state_dict import load_into, read_state_dict


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOUCH_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


# Against a small server that answers as the hub does, since no real hub may be asked.


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "starter"
    folder.mkdir()
    (folder / "detector.safetensors").write_bytes(b"weights")
    (folder / "detector.json").write_text("{}")
    (folder / "checksums.json").write_text(json.dumps({"detector.safetensors": sha(b"weights")}))
    monkeypatch.setattr(checkpoints, "STARTER", folder)
    return folder


def test_starter_is_pinned_and_brings_its_architecture(starter: Path) -> None:
    weights = checkpoints.resolve(DetectorConfig(), "detector")
    assert weights.path == starter / "detector.safetensors"
    assert weights.sha256 == sha(b"weights")
    assert weights.architecture == starter / "detector.json"
    assert weights.source == "starter"


def test_changed_starter_is_refused_with_both_hashes(starter: Path) -> None:
    (starter / "detector.safetensors").write_bytes(b"changed")
    with pytest.raises(CheckpointError) as raised:
        checkpoints.resolve(DetectorConfig(), "detector")
    message = str(raised.value)
    assert sha(b"changed") in message
    assert sha(b"weights") in message
    assert "\n" not in message


def test_unpinned_or_missing_starter_says_to_install_again(starter: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not pin segmenter\.safetensors; install again"):
        checkpoints.resolve(SegmenterConfig(), "segmenter")
    (starter / "detector.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing; install again"):
        checkpoints.resolve(DetectorConfig(), "detector")


def test_path_with_its_pin_and_architecture(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    described = tmp_path / "a.json"
    described.write_text("{}")
    config = DetectorConfig(checkpoint=str(path), sha256=sha(b"abc"), architecture=str(described))
    weights = checkpoints.resolve(config, "detector")
    assert (weights.path, weights.architecture) == (path, described)
    assert checkpoints.resolve(DetectorConfig(checkpoint=str(path)), "detector").architecture is None
    with pytest.raises(CheckpointError, match="not " + "0" * 64):
        checkpoints.resolve(DetectorConfig(checkpoint=str(path), sha256="0" * 64), "detector")
    with pytest.raises(CheckpointError, match=r"models\.detector\.architecture: no file"):
        checkpoints.resolve(DetectorConfig(checkpoint=str(path), architecture=str(tmp_path / "none.json")), "detector")


def test_official_file_put_by_hand_is_verified(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = OFFICIAL["sam_vit_b"]
    path = cache / "checkpoints" / "sam_vit_b_01ec64.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not it")
    with pytest.raises(CheckpointError, match=known.sha256):
        checkpoints.resolve(SegmenterConfig(checkpoint="sam_vit_b"), "segmenter")
    monkeypatch.setitem(OFFICIAL, "sam_vit_b", dataclasses.replace(known, sha256=sha(b"not it")))
    weights = checkpoints.resolve(SegmenterConfig(checkpoint="sam_vit_b"), "segmenter")
    assert (weights.path, weights.architecture) == (path, "vit_b")


def test_official_file_under_another_name_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"bytes")
    entry = dataclasses.replace(OFFICIAL["groundingdino_swinb_cogcoor"], sha256=sha(b"bytes"))
    monkeypatch.setitem(checkpoints.OFFICIAL, "groundingdino_swinb_cogcoor", entry)
    assert checkpoints.resolve(DetectorConfig(checkpoint=str(path)), "detector").architecture == "swin_b"
    assert checkpoints.resolve(SegmenterConfig(checkpoint=str(path)), "segmenter").architecture is None


@pytest.mark.parametrize(
    ("reference", "message"),
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
def test_bad_references_get_one_line(reference: str, message: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        checkpoints.resolve(DetectorConfig(checkpoint=reference), "detector")
    assert message in str(raised.value)
    assert str(raised.value).startswith("models.detector.checkpoint: ")
    assert "\n" not in str(raised.value)


def test_scorer_has_no_official_names() -> None:
    with pytest.raises(CheckpointError, match=r"use one of starter$"):
        checkpoints.resolve(ScorerConfig(checkpoint="sam_vit_b"), "scorer")


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


COMMIT = "c" * 40
BODY = b"hub weights"


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, body: bool) -> None:
        errors = {
            "/owner/gated/": (403, "GatedRepo"),
            "/owner/none/": (404, "RepoNotFound"),
            "/owner/repo/resolve/old/": (404, "RevisionNotFound"),
            "/owner/repo/resolve/main/none": (404, "EntryNotFound"),
            "/owner/broken/": (400, ""),
        }
        status, code = next((answer for start, answer in errors.items() if self.path.startswith(start)), (200, ""))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(BODY).hexdigest()}"')
        self.send_header("Content-Length", str(len(BODY) if status == 200 else 0))
        self.end_headers()
        if body and status == 200:
            self.wfile.write(BODY)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(reference: str, download: bool = True) -> Path:
    return resolve(DetectorConfig(checkpoint=reference), "detector", download=download).path


def test_file_is_fetched_and_then_here(hub: Path) -> None:
    with pytest.raises(CheckpointError, match="fetch it with `vouch models pull`"):
        fetch("hf://owner/repo@main/w.pth", download=False)
    path = fetch("hf://owner/repo@main/w.pth")
    assert path.read_bytes() == BODY
    assert path.is_relative_to(hub)
    assert fetch("hf://owner/repo@main/w.pth", download=False) == path


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hf://owner/gated/w.pth", "accept them and set HF_TOKEN"),
        ("hf://owner/none/w.pth", "no such repository"),
        ("hf://owner/repo@old/w.pth", "no such revision"),
        ("hf://owner/repo/none.pth", "no such file in the repository"),
    ],
)
def test_what_the_hub_refuses_is_said(hub: Path, reference: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        fetch(reference)
    assert "\n" not in str(raised.value)
    assert "127.0.0.1" not in str(raised.value)


def test_offline_official_name_is_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="the hub cannot be reached; give the path of a local copy"):
        fetch("groundingdino_swint_ogc")


def test_broken_hub_is_one_line(hub: Path) -> None:
    with pytest.raises((CheckpointError, VouchError)) as raised:
        fetch("hf://owner/broken/w.pth")
    assert "\n" not in str(raised.value)
    assert "hf://owner/broken/w.pth" in str(raised.value)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = "models"
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    yield name
    server.stop()


def test_object_is_fetched_once_and_again_when_it_changes(bucket: str, cache: Path) -> None:
    client = boto3.client("s3")
    client.put_object(Bucket=bucket, Key="deep/w.pth", Body=b"first")
    config = DetectorConfig(checkpoint=f"s3://{bucket}/deep/w.pth")
    with pytest.raises(CheckpointError, match="run `vouch models pull`"):
        resolve(config, "detector", download=False)
    first = resolve(config, "detector")
    assert first.path.read_bytes() == b"first"
    assert first.path.name == "w.pth"
    assert first.path.is_relative_to(cache)
    stamp = first.path.stat().st_mtime_ns
    assert resolve(config, "detector", download=False) == first
    assert first.path.stat().st_mtime_ns == stamp
    client.put_object(Bucket=bucket, Key="deep/w.pth", Body=b"second")
    assert resolve(config, "detector").path.read_bytes() == b"second"


def test_missing_object_and_bucket(bucket: str) -> None:
    for reference in (f"s3://{bucket}/none.pth", "s3://no-such-bucket/none.pth"):
        with pytest.raises(CheckpointError, match="no such") as raised:
            resolve(DetectorConfig(checkpoint=reference), "detector")
        assert reference in str(raised.value)


def test_unreachable_store_is_one_line_without_secrets(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(CheckpointError, match=r"the endpoint does not answer.*AWS_ENDPOINT_URL") as raised:
        resolve(DetectorConfig(checkpoint=f"s3://{bucket}/w.pth"), "detector")
    assert "not-to-be-shown" not in str(raised.value)


def test_unwritable_cache(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="w.pth", Body=b"x")
    (tmp_path / "plain").write_bytes(b"")
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "plain" / "below"))
    with pytest.raises(VouchError, match="free space or set VOUCH_CACHE"):
        resolve(DetectorConfig(checkpoint=f"s3://{bucket}/w.pth"), "detector")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "models").mkdir()
    return Weights(tmp_path / "models" / "w.pth", "", None, "test")


def test_folder_given_or_beside_the_checkpoint(weights: Weights, tiny_tokenizer: Path) -> None:
    assert tokenizer_folder(str(tiny_tokenizer), weights) == tiny_tokenizer
    beside = weights.path.parent / "tokenizer"
    shutil.copytree(tiny_tokenizer, beside)
    assert tokenizer_folder(None, weights) == beside
    assert tokenizer_folder(str(tiny_tokenizer), weights) == tiny_tokenizer


def test_published_one_put_by_hand(weights: Weights, tiny_tokenizer: Path, tmp_path: Path) -> None:
    by_hand = tmp_path / "cache" / "tokenizers" / "bert-base-uncased"
    shutil.copytree(tiny_tokenizer, by_hand)
    assert tokenizer_folder(None, weights) == by_hand


def test_absent_offline_is_one_line(weights: Weights) -> None:
    with pytest.raises(CheckpointError, match="bert-base-uncased is not on this machine and the hub cannot") as raised:
        tokenizer_folder(None, weights)
    assert "\n" not in str(raised.value)
    assert "http" not in str(raised.value)


def test_folder_without_a_tokenizer(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json or vocab\.txt"):
        tokenizer_folder(str(tmp_path / "models"), weights)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def weights_of(path: Path) -> Weights:
    return Weights(path, "0" * 64, "tiny", "test")


def message_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_state_dict(weights_of(path))
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [
        TENSORS,
        {"model": TENSORS, "epoch": 3},
        {"state_dict": {f"module.{name}": value for name, value in TENSORS.items()}},
        {"model": {f"module.{name}": value for name, value in TENSORS.items()}, "optimizer": {"lr": 1}},
    ],
)
def test_wrappings_come_off(tmp_path: Path, wrapped: dict[str, Any], zipped: bool) -> None:
    torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    state = read_state_dict(weights_of(tmp_path / "w.pth"))
    assert state.keys() == TENSORS.keys()
    assert all(torch.equal(state[name], TENSORS[name]) for name in TENSORS)


def test_safetensors_under_any_name(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.bin")
    assert torch.equal(read_state_dict(weights_of(tmp_path / "w.bin"))["a.weight"], TENSORS["a.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    message = message_of(tmp_path / "w.pth")
    assert "would run code (posix.mkdir)" in message
    assert not (tmp_path / "ran").exists()


def test_bare_pickle_and_foreign_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    assert "refused" in message_of(tmp_path / "raw.pth")
    assert not (tmp_path / "ran").exists()
    torch.save({"model": TENSORS, "args": Namespace(lr=1)}, tmp_path / "args.pth")
    assert "argparse.Namespace" in message_of(tmp_path / "args.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    assert "refused" in message_of(tmp_path / "module.pth")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pth")
    assert "refused" in message_of(tmp_path / "script.pth")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "w"
    big = {"model": {"a": torch.ones(5000)}}
    if kind == "safetensors":
        save_file(big["model"], path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "truncated or damaged; fetch it again" in message_of(path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert "it is empty" in message_of(tmp_path / "empty")
    (tmp_path / "pointer").write_text("version 1\noid sha256:12\n")
    assert "is no checkpoint" in message_of(tmp_path / "pointer")
    torch.save({"epoch": 3}, tmp_path / "none")
    assert "holds no named tensors" in message_of(tmp_path / "none")
    torch.save([torch.ones(2)], tmp_path / "list")
    assert "holds no named tensors" in message_of(tmp_path / "list")
    assert "cannot read" in message_of(tmp_path / "gone")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)


def test_half_precision_is_widened_and_ignored_names_may_stay(tmp_path: Path) -> None:
    model = Model()
    state = {**{name: value.half() for name, value in TENSORS.items()}, "position_ids": torch.arange(3)}
    load_into(model, state, weights_of(tmp_path), ignore={"position_ids"})
    assert model.a.weight.dtype == torch.float32
    assert torch.equal(model.a.weight, TENSORS["a.weight"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": TENSORS["a.weight"]}, "1 of 2 tensors fit; first difference: a.bias is missing"),
        ({**TENSORS, "a.bias": torch.ones(5)}, "1 of 2 tensors fit; first difference: a.bias is 5 where 2 is wanted"),
        ({**TENSORS, "b": torch.ones(5)}, "2 of 2 tensors fit; first difference: b has no place"),
        ({"x": torch.ones(())}, "0 of 2 tensors fit; first difference: a.weight is missing"),
    ],
)
def test_another_architecture_is_said(tmp_path: Path, state: dict[str, torch.Tensor], message: str) -> None:
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        load_into(model, state, weights_of(tmp_path / "w.pth"))
    assert f"is of another architecture than tiny ({message})" in str(raised.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
