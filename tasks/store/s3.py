"""Implements the store on an S3 bucket or a prefix of one.

One boto3 client per process and set of options, shared by all threads; errors of S3 and boto3 become one line that says
what to do; presigned addresses let a browser fetch one object for a short time.
"""

import errno
import logging
import os
import re
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import ObjectMissingError, ObjectRefusedError, StoreAccessError, StoreError, VouchError
from vouch_labels.tasks.store.store import Blob, ObjectInfo, Store

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from types_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

WRITER = "vouch-writer"
"""Metadata of a conditional write that tells whose it was."""
BROKEN_OFF_WAIT_S = 0.05
CONFLICT_WAITS_S = (0.05, 0.2, 0.8, 2.0)

_clients: dict[tuple[object, ...], "S3Client"] = {}
_lock = threading.Lock()

FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", "507"}
BUSY = {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "RequestLimitExceeded", "429", "503"}


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

    def list(self, prefix: str = "", left_out: Counter[str] | None = None) -> Iterator[ObjectInfo]:  # noqa: ARG002
        """Yield the objects under `prefix`, a page of 1,000 in memory at a time, in the store's order.

        General-purpose buckets and Ceph answer in the order of UTF-8 bytes. All names of a bucket stand for objects.
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


ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SHARED_CREDENTIALS_FILE",
)
"""Variables that decide who a client is; a changed one asks for another client."""


def s3_client(options: S3Options) -> "S3Client":
    """Give the process's client for these options, made on first use; a forked child makes its own.

    Raises:
        StoreAccessError: The endpoint is no URL, or boto3's own settings name a profile that does not exist.
    """
    identity = (os.getpid(), options, *(os.environ.get(name) for name in ENVIRONMENT))
    with _lock:
        if identity not in _clients:
            _clients[identity] = _make(options)
        return _clients[identity]


def _make(options: S3Options) -> "S3Client":
    # Importing boto3 takes about half a second, and folders do not need it.
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        max_pool_connections=options.threads,
        connect_timeout=options.connect_timeout_s,
        read_timeout=options.read_timeout_s,
        retries={"mode": options.retry_mode, "total_max_attempts": options.max_attempts},
        s3={"addressing_style": "path" if options.path_style else "auto"},
        request_checksum_calculation=options.checksums,
        response_checksum_validation=options.checksums,
        signature_version="s3v4",
    )
    try:
        # A session of its own: boto3's default one is not safe to use from several threads.
        return Session().client(
            "s3", endpoint_url=options.endpoint_url, region_name=options.region or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise StoreAccessError(f"cannot set up S3: {without_secrets(str(error))}; check s3: and AWS_*") from error


ACCESS = {
    "NoSuchBucket": "the bucket does not exist; check the name, s3.endpoint_url and s3.region",
    "InvalidBucketName": "this is no valid bucket name; check it",
    "AccessDenied": "access denied; grant {permission} to the credentials in use",
    "AllAccessDisabled": "access to the bucket is disabled; ask its owner",
    "AccountProblem": "there is a problem with the account; ask its owner",
    "InvalidAccessKeyId": "the store does not know the access key; check AWS_ACCESS_KEY_ID, the profile "
    "and s3.endpoint_url",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the session token has expired; log in again",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN or log in again",
    "TokenRefreshRequired": "the session token has expired; log in again",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; set it right",
    "PermanentRedirect": "the bucket is in another region{region}; set s3.region",
    "AuthorizationHeaderMalformed": "the bucket is in another region{region}; set s3.region",
    "IllegalLocationConstraintException": "the bucket is in another region{region}; set s3.region",
    "InvalidRequest": "the store refuses this kind of request; try s3.checksums: when_required and s3.path_style: true",
    "XAmzContentSHA256Mismatch": "the store does not know the checksums sent; set s3.checksums: when_required",
}
"""Codes that the user can fix."""

SYNONYMS = {
    "301": "PermanentRedirect",
    "307": "PermanentRedirect",
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "UnauthorizedAccess": "AccessDenied",
    "404": "NoSuchBucket",
    "NotFound": "NoSuchBucket",
    "Unauthorized": "InvalidAccessKeyId",
    "401": "InvalidAccessKeyId",
}


@contextmanager
def s3_errors(what: str, *, permission: str, key: str | None = None) -> Iterator[None]:
    """Turn botocore's errors into one line each.

    Args:
        what: What is being done, "read s3://bucket/key".
        permission: Name of the permission that it needs, "s3:GetObject".
        key: The object, where its absence is an error.

    Raises:
        ObjectMissingError: The object does not exist.
        ObjectRefusedError: Access to the object is denied.
        StoreAccessError: Something that the user can fix: the bucket, credentials, endpoint, region.
        StoreError: Anything else, after boto3's own retries.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _from_answer(error, what, permission, key) from error
    except BotoCoreError as error:
        raise _from_client(error, what) from error
    except ResponseParserError as error:
        raise StoreAccessError(f"cannot {what}: the endpoint does not speak S3; check s3.endpoint_url") from error
    except Boto3Error as error:
        raise StoreError(f"cannot {what}: {without_secrets(str(error))}") from error


def without_secrets(text: str) -> str:
    """Strip user names, passwords and query strings from the URLs of a text, and fold it into one line."""
    text = re.sub(r"(?<=://)[^/\s\"'@]*@", "", text)
    text = re.sub(r"(\w+://[^\s\"'?]*)\?[^\s\"']*", r"\1", text)
    return " ".join(text.split())


def _from_answer(error: "ClientError", what: str, permission: str, key: str | None) -> VouchError:
    answer = error.response
    status = str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    code = answer.get("Error", {}).get("Code", "") or status
    if key is not None and (code == "NoSuchKey" or (status == "404" and code in {"404", "NotFound", ""})):
        return ObjectMissingError(f"cannot {what}: no object has this key")
    if code == "InvalidObjectState":
        return StoreError(f"cannot {what}: the object is archived; restore it, and then try the failed images again")
    if code in FULL:
        return StoreError(f"cannot {what}: the store is full or its quota is used up; free some space and run again")
    if code in BUSY:
        return StoreError(f"cannot {what}: the store asks to slow down; lower s3.threads or set retry_mode: adaptive")
    meant = SYNONYMS.get(code, code)
    if meant not in ACCESS and status == "403":
        meant = "AccessDenied"
    known = ACCESS.get(meant)
    if known is not None:
        region = _region(error)
        hint = known.format(permission=permission, region=f" ({region})" if region else "")
        kind = ObjectRefusedError if meant == "AccessDenied" and key is not None else StoreAccessError
        return kind(f"cannot {what}: {hint}")
    if code == status:
        hint = "check s3.endpoint_url, or try again later"
        return StoreError(f"cannot {what}: the endpoint answers {status} without saying why; {hint}")
    message = without_secrets(str(answer.get("Error", {}).get("Message", "")))
    return StoreError(f"cannot {what}: {code} {message}".rstrip())


def _region(error: "ClientError") -> str | None:
    answer = error.response
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details: dict[str, object] = dict(answer.get("Error", {}))
    region = headers.get("x-amz-bucket-region") or details.get("Region")
    return str(region) if region else None


def _from_client(error: "BotoCoreError", what: str) -> VouchError:
    from botocore import exceptions as e

    no_answer = (e.EndpointConnectionError, e.ConnectTimeoutError, e.ProxyConnectionError)
    broken_off = (e.ReadTimeoutError, e.ConnectionClosedError, e.ResponseStreamingError, e.IncompleteReadError)
    login = (e.SSOError, e.TokenRetrievalError, e.LoginError, e.NoAuthTokenError)
    text = without_secrets(str(error))
    if isinstance(error, e.NoCredentialsError | e.PartialCredentialsError | e.CredentialRetrievalError):
        hint = "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif isinstance(error, login):
        hint = "the login has ended; log in again"
    elif isinstance(error, e.SSLError):
        hint = "the endpoint's certificate is not trusted; set AWS_CA_BUNDLE, or use http:// in s3.endpoint_url"
    elif isinstance(error, no_answer):
        hint = f"the endpoint does not answer; check s3.endpoint_url, s3.region and the network ({text})"
    elif isinstance(error, e.ParamValidationError):
        hint = f"the bucket name or key is not valid; check the uri ({text})"
    elif isinstance(error, broken_off):
        return StoreError(f"cannot {what}: the connection broke off; run again, or raise s3.read_timeout_s ({text})")
    else:
        return StoreError(f"cannot {what}: {text}")
    return StoreAccessError(f"cannot {what}: {hint}")


def presigned_url(store: Store, key: str, seconds: int) -> str | None:
    """Sign an address that reads one object for so many seconds; None when the store is no bucket.

    The address is a secret as long as it works. No request is made.

    Raises:
        StoreAccessError: There are no credentials to sign with.
    """
    if not isinstance(store, S3Store):
        return None
    with s3_errors(f"sign an address in {store.uri}", permission="s3:GetObject", key=key):
        return store.client.generate_presigned_url(
            "get_object", Params={"Bucket": store.bucket, "Key": store.prefix + key}, ExpiresIn=seconds
        )


def origin_of(url: str) -> str:
    """Scheme and host of an address, as a Content-Security-Policy names them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
