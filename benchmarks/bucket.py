"""A bucket with many small objects on an S3 server."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.harness.child import in_child

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

THREADS: Final = 16
PER_PAGE: Final = 1000


@contextmanager
def filled_bucket(endpoint: str, objects: int) -> Iterator[str]:
    """Make a bucket, and delete it when the block ends; processes of their own do both.

    Args:
        endpoint: Address of the server; credentials come from boto3's own chain.
        objects: Objects of one byte in it.

    Yields:
        Its s3:// uri.
    """
    bucket = f"vouch-bench-{uuid.uuid4().hex[:12]}"
    try:
        in_child(_fill, endpoint=endpoint, bucket=bucket, objects=objects)
        yield f"s3://{bucket}"
    finally:
        in_child(_remove, endpoint=endpoint, bucket=bucket)


def client_of(endpoint: str) -> "S3Client":
    """A client of a server, with as many connections as THREADS."""
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=THREADS,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def _fill(endpoint: str, bucket: str, objects: int) -> int:
    client = client_of(endpoint)
    client.create_bucket(Bucket=bucket)

    def put(number: int) -> None:
        client.put_object(Bucket=bucket, Key=f"{number // PER_PAGE:04d}/{number:09d}.jpg", Body=b"x")

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(1 for _ in pool.map(put, range(objects)))


def _remove(endpoint: str, bucket: str) -> int:
    client = client_of(endpoint)
    removed = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})  # type: ignore[typeddict-item] # the stub wants its own dict type
            removed += len(keys)
    client.delete_bucket(Bucket=bucket)
    return removed
