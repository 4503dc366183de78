import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vouch_labels.schemas.campaign import S3Options
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.store import Store

REAL = os.environ.get("S3_TEST_ENDPOINT")
BACKENDS = ["local", "moto", pytest.param("real", marks=pytest.mark.s3)]


def options(endpoint: str, **changes: Any) -> S3Options:
    return S3Options.model_validate(
        {"endpoint_url": endpoint, "path_style": True, "checksums": "when_required", "max_attempts": 2} | changes
    )


@pytest.fixture
def moto_store(moto_endpoint: str, credentials: None) -> Iterator[S3Store]:
    yield from _bucket(moto_endpoint)


@pytest.fixture
def real_store(request: pytest.FixtureRequest) -> Iterator[S3Store]:
    assert REAL, "skipped where no server is named"
    yield from _bucket(REAL)


@pytest.fixture(params=["moto", pytest.param("real", marks=pytest.mark.s3)])
def s3_store(request: pytest.FixtureRequest) -> S3Store:
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return request.getfixturevalue(f"{request.param}_store")


def _bucket(endpoint: str) -> Iterator[S3Store]:
    bucket = f"vouch-test-{os.getpid()}-{os.urandom(4).hex()}"
    store = S3Store(bucket, "some/prefix", options(endpoint))
    store.client.create_bucket(Bucket=bucket)
    yield store
    for page in store.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            store.client.delete_object(Bucket=bucket, Key=item["Key"])
    store.client.delete_bucket(Bucket=bucket)


@pytest.fixture
def make_options() -> Callable[..., S3Options]:
    return options
