"""An S3 bucket, or a prefix of one, as an object store."""

import errno
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, cast

from schemas.campaign import S3Options
from schemas.errors import ObjectMissingError, StoreError
from tasks.store.s3_client import s3_client
from tasks.store.s3_errors import s3_errors
from tasks.store.store import Blob, ObjectInfo

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

WRITER = "vouch-writer"
"""Metadata of a conditional write that tells whose it was."""
BROKEN_OFF_WAIT_S = 0.05
CONFLICT_WAITS_S = (0.05, 0.2, 0.8, 2.0)


class S3Store:
    """The objects of a bucket whose keys start with a prefix and a slash.

    Works with AWS and with S3-compatible stores. Conditional writes are used where the store knows them and never
    relied on where it does not. Folder markers (keys that end in a slash) are not objects.
    """

    def __init__(self, bucket: str, prefix: str, options: S3Options) -> None:
        """Take a bucket and a prefix with or without its last slash; no request is made."""
        self.bucket = bucket
        self.prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self.options = options
        self._knows_conditions = True

    @property
    def client(self) -> "S3Client":
        """The process's shared client."""
        return s3_client(self.options)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects under `prefix`, a page of 1,000 in memory at a time, in the store's order.

        General-purpose buckets and Ceph answer in the order of UTF-8 bytes.
        """
        with s3_errors(f"list {self.uri}/{prefix}", permission="s3:ListBucket"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):
                        yield ObjectInfo(item["Key"][len(self.prefix) :], _tag(item["ETag"]), item["Size"])

    def get(self, key: str) -> Blob:
        """Read an object; the ETag is that of the answer, so a change since the listing shows."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        with s3_errors(f"read {self.uri}/{key}", permission="s3:GetObject", key=key):
            for attempt in range(self.options.max_attempts):
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
                try:
                    return Blob(answer["Body"].read(), _tag(answer["ETag"]))
                except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    # boto3 repeats requests, but not an answer that breaks off.
                    if attempt + 1 == self.options.max_attempts:
                        raise
                    time.sleep(BROKEN_OFF_WAIT_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def open_reader(self, key: str) -> Iterator[BinaryIO]:
        """Download an object into a temporary file on local disk."""
        with tempfile.TemporaryFile(prefix="vouch-") as file:
            with s3_errors(f"read {self.uri}/{key}", permission="s3:GetObject", key=key), _local_disk():
                self.client.download_fileobj(self.bucket, self.prefix + key, file)
            file.seek(0)
            yield cast(BinaryIO, file)

    def stat(self, key: str) -> ObjectInfo | None:
        """Look an object up with a HEAD request."""
        try:
            with s3_errors(f"look up {self.uri}/{key}", permission="s3:GetObject and s3:ListBucket", key=key):
                head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        except ObjectMissingError:
            return None
        return ObjectInfo(key, _tag(head["ETag"]), head["ContentLength"])

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object with one request, which is atomic; `if_absent` becomes If-None-Match."""
        if if_absent and self._knows_conditions:
            try:
                return self._put_if_absent(key, data)
            except NotImplementedError:
                logger.info("%s does not know If-None-Match: looking before each write instead", self.uri)
                self._knows_conditions = False
        if if_absent and self.stat(key) is not None:
            return False
        with s3_errors(f"write {self.uri}/{key}", permission="s3:PutObject"):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)
        return True

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """Collect the stream in a temporary file on local disk, then upload it, in parts if it is large."""
        with tempfile.TemporaryFile(prefix="vouch-") as file:
            with _local_disk():
                yield cast(BinaryIO, file)
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
            with s3_errors(f"write {self.uri}/{key} ({size} bytes)", permission="s3:PutObject"):
                self.client.upload_fileobj(file, self.bucket, self.prefix + key)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(ObjectMissingError), s3_errors(f"delete {self.uri}/{key}", permission="s3:DeleteObject", key=key):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def local_path(self, key: str) -> None:
        """Nothing of a bucket lies on local disk."""

    def _put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        token = secrets.token_hex(16)
        with s3_errors(f"write {self.uri}/{key}", permission="s3:PutObject"):
            for wait in (*CONFLICT_WAITS_S, None):
                try:
                    self.client.put_object(
                        Bucket=self.bucket,
                        Key=self.prefix + key,
                        Body=data,
                        IfNoneMatch="*",
                        Metadata={WRITER: token},
                    )
                    return True
                except ClientError as error:
                    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                    if status == 412:
                        return self._is_mine(key, token)
                    if status == 501 or error.response.get("Error", {}).get("Code") == "NotImplemented":
                        raise NotImplementedError from error
                    # 409: another conditional write of this key is under way.
                    if status != 409 or wait is None:
                        raise
                    time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _is_mine(self, key: str, token: str) -> bool:
        # boto3 repeats a PUT whose answer was lost, and the repetition finds what the first one wrote.
        with s3_errors(f"look up {self.uri}/{key}", permission="s3:GetObject", key=key):
            head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        return head["Metadata"].get(WRITER) == token


def _tag(etag: str) -> str:
    return etag.strip('"')


@contextmanager
def _local_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or error.filename is not None:
            raise
        raise StoreError(f"no space left in {tempfile.gettempdir()}; free some or set TMPDIR elsewhere") from error
