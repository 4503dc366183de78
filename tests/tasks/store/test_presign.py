"""Addresses of objects that work for a short time."""

from urllib.parse import parse_qs, urlsplit

import pytest

from schemas.campaign import S3Options
from schemas.errors import StoreAccessError
from tasks.store.local import LocalStore
from tasks.store.presign import origin_of, presigned_url
from tasks.store.s3 import S3Store


@pytest.fixture
def keys(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"testing-{name}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def test_an_address_of_one_object_for_so_many_seconds(keys):
    store = S3Store("photos", "raw", S3Options(endpoint_url="http://127.0.0.1:9", region="us-east-1", path_style=True))
    url = presigned_url(store, "a folder/one.png", 60)
    assert url.startswith("http://127.0.0.1:9/photos/raw/a%20folder/one.png?")
    said = parse_qs(urlsplit(url).query)
    assert said["X-Amz-Expires"] == ["60"]
    assert "testing-AWS_SECRET_ACCESS_KEY" not in url
    assert origin_of(url) == "http://127.0.0.1:9"


def test_a_folder_has_no_addresses(tmp_path):
    assert presigned_url(LocalStore(tmp_path), "one.png", 60) is None


def test_without_credentials_it_says_so(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store("photos", "raw", S3Options(endpoint_url="http://127.0.0.1:9", region="eu-none-1"))
    with pytest.raises(StoreAccessError, match="credentials"):
        presigned_url(store, "one.png", 60)
