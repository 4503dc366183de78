from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from schemas.campaign import DetectorConfig
from schemas.errors import CheckpointError, VouchError
from tasks.models.weights.resolve import resolve


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
    with pytest.raises(CheckpointError, match="EndpointConnectionError; check AWS_ENDPOINT_URL") as raised:
        resolve(DetectorConfig(checkpoint=f"s3://{bucket}/w.pth"), "detector")
    assert "not-to-be-shown" not in str(raised.value)


def test_unwritable_cache(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="w.pth", Body=b"x")
    (tmp_path / "plain").write_bytes(b"")
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "plain" / "below"))
    with pytest.raises(VouchError, match="free space or set VOUCH_CACHE"):
        resolve(DetectorConfig(checkpoint=f"s3://{bucket}/w.pth"), "detector")
