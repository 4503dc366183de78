"""Implements the store on an S3 bucket or a prefix of one.

One boto3 client per process and set of options, shared by all threads, and a new one where credentials expire and
others are there. What is read is compared with its ETag where that is an MD5, and read again where they differ. Errors
of S3 and boto3 become one line that says what to do; presigned addresses let a browser fetch one object for a short
time.
"""

import errno
import hashlib
import logging
import os
import re
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit
from xml.etree import ElementTree

from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import (
    ObjectArchivedError,
    ObjectChangedError,
    ObjectMissingError,
    ObjectRefusedError,
    StoreAccessError,
    StoreError,
    VouchError,
)
from vouch_labels.tasks.store.listing import Page, list_in_order
from vouch_labels.tasks.store.store import Blob, ObjectInfo, Store

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, ClientError
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef, ListObjectsV2RequestTypeDef

T = TypeVar("T")

logger = logging.getLogger(__name__)

AWS = r"^https?://[^/]*\.amazonaws\.com(\.cn)?(:|/|$)"
WRITER = "vouch-writer"
"""Metadata of a conditional write that tells whose it was."""
BROKEN_OFF_WAIT_S = 0.05
CONFLICT_WAITS_S = (0.05, 0.2, 0.8, 2.0)


class _Connection(NamedTuple):
    client: "S3Client"
    session: "Session"


_clients: dict[tuple[object, ...], _Connection] = {}
_lock = threading.Lock()

_has_md5_tags: dict[tuple[str, bool], bool] = {}
"""Endpoint, and whether the bucket is a directory bucket -> whether its ETags were seen to be MD5s, or not to be."""

DAMAGED = "what comes is not what was stored (its checksum, MD5 or size differs); look at the network and the store"
RESTORE = "the object is archived (S3 Glacier, Deep Archive ...): restore it in the store, and run again"

CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"}
"""If-Match names another version, or the object ends before the range."""
ARCHIVED = {"InvalidObjectState", "ObjectNotInActiveTierError"}
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
        """Yield the objects under `prefix` in the store's order, more than a page of 1,000 in several threads.

        General-purpose buckets and Ceph answer in the order of UTF-8 bytes. All names of a bucket stand for objects.
        """
        what = f"list {self.uri}/{prefix}"
        # Directory buckets list in no order, and know no StartAfter.
        threads = 1 if self.bucket.endswith("--x-s3") else self.options.threads
        with s3_errors(what, permission="s3:ListBucket"), _local_disk():
            for key, tag, size in list_in_order(partial(self._page, prefix), threads, what):
                if not key.endswith("/"):
                    yield ObjectInfo(key[len(self.prefix) :], tag, size)

    def _page(self, prefix: str, after: str, token: str) -> Page:
        where: ListObjectsV2RequestTypeDef = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
        if token:
            where["ContinuationToken"] = token
        elif after:
            where["StartAfter"] = after
        # Page by page, since credentials may expire between two of them.
        page = self._ask(lambda s3: s3.list_objects_v2(**where))
        rows = [(item["Key"], _tag(item["ETag"]), item["Size"]) for item in page.get("Contents", [])]
        return Page(rows, page.get("NextContinuationToken", ""))

    def get(self, key: str) -> Blob:
        """Read an object; the ETag is that of the answer, so a change since the listing shows.

        An answer that breaks off, or that does not fit its checksum or its ETag (see `_fits`), is read again.
        """
        found: list[str] = []
        with s3_errors(f"read {self.uri}/{key}", permission="s3:GetObject", key=key):
            for attempt in range(self.options.max_attempts):
                if attempt:
                    time.sleep(BROKEN_OFF_WAIT_S * 2 ** (attempt - 1))
                answer = self._ask(lambda s3: s3.get_object(Bucket=self.bucket, Key=self.prefix + key))
                try:
                    data = answer["Body"].read()
                except _broken_off():
                    # boto3 repeats requests, but not an answer that breaks off.
                    if attempt + 1 == self.options.max_attempts:
                        raise
                    continue
                found.append(hashlib.md5(data, usedforsecurity=False).hexdigest())
                blob = Blob(data, _tag(answer["ETag"]))
                if self._fits(answer, found[-1]):
                    return blob
        if self._is_believed(found):
            return blob
        raise StoreError(f"cannot read {self.uri}/{key}: {DAMAGED}")

    def get_range(self, key: str, start: int, size: int, etag: str) -> bytes:
        """Read a part of an object by one request with Range and If-Match, again where the answer breaks off.

        Of a part no ETag tells whether it is what was stored; its length is compared.
        """
        if size == 0:
            return b""  # no Range says so
        last = start + size - 1
        with s3_errors(f"read {self.uri}/{key}", permission="s3:GetObject", key=key):
            for attempt in range(self.options.max_attempts):
                if attempt:
                    time.sleep(BROKEN_OFF_WAIT_S * 2 ** (attempt - 1))
                answer = self._ask(
                    lambda s3: s3.get_object(
                        Bucket=self.bucket, Key=self.prefix + key, Range=f"bytes={start}-{last}", IfMatch=f'"{etag}"'
                    )
                )
                if _tag(answer["ETag"]) != etag:  # a store that passes over If-Match
                    raise ObjectChangedError(f"{self.uri}/{key} has changed while it was read")
                if not answer.get("ContentRange", "").startswith(f"bytes {start}-{last}/"):
                    raise StoreError(
                        f"cannot read {self.uri}/{key}: the store gives another part than asked for (Range)"
                    )
                try:
                    data = answer["Body"].read()
                except _broken_off():
                    if attempt + 1 == self.options.max_attempts:
                        raise
                    continue
                if len(data) == size:
                    return data
        raise StoreError(f"cannot read {self.uri}/{key}: {DAMAGED}")

    @contextmanager
    def open_reader(self, key: str) -> Iterator[BinaryIO]:
        """Download an object into a temporary file on local disk; the rules of `get` hold, and its size is compared."""
        with tempfile.TemporaryFile(prefix="vouch-") as file:
            with s3_errors(f"read {self.uri}/{key}", permission="s3:GetObject", key=key), _local_disk():
                self._download(key, file)
            file.seek(0)
            yield cast(BinaryIO, file)

    def _download(self, key: str, file: BinaryIO) -> None:
        from botocore.exceptions import FlexibleChecksumError

        def fetch(s3: "S3Client") -> None:
            file.seek(0)
            file.truncate()
            s3.download_fileobj(self.bucket, self.prefix + key, file)

        found: list[str] = []
        for attempt in range(self.options.max_attempts):
            head = self._ask(lambda s3: s3.head_object(Bucket=self.bucket, Key=self.prefix + key))
            try:
                self._ask(fetch)
            except FlexibleChecksumError:
                if attempt + 1 == self.options.max_attempts:
                    raise
                continue
            file.seek(0)
            digest = hashlib.md5(usedforsecurity=False)
            while block := file.read(1 << 20):
                digest.update(block)
            if file.tell() == head["ContentLength"]:
                found.append(digest.hexdigest())
                if self._fits(head, found[-1]):
                    return
        if self._is_believed(found):
            return
        raise StoreError(f"cannot read {self.uri}/{key}: {DAMAGED}")

    def _fits(self, answer: "GetObjectOutputTypeDef | HeadObjectOutputTypeDef", found: str) -> bool:
        """Whether content fits its ETag, as far as that can tell.

        On AWS the ETag is the MD5 of the content where the object was put in one part, is not encrypted with keys of
        KMS or of the customer, and lies in no directory bucket. Other stores mostly do as AWS does.

        Args:
            answer: What came with the content.
            found: MD5 of the content, as hex.
        """
        tag = _tag(answer["ETag"])
        if found == tag:
            _has_md5_tags[self._place()] = True
            return True
        encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "AES256") != "AES256"
        return encrypted or re.fullmatch("[0-9a-f]{32}", tag) is None or _has_md5_tags.get(self._place()) is False

    def _is_believed(self, found: Sequence[str]) -> bool:
        """Whether the same content, which does not fit, came each time from a store of which none has fitted yet."""
        place = self._place()
        if place in _has_md5_tags or re.search(AWS, place[0]) or len(set(found)) != 1:
            return False
        if len(found) < self.options.max_attempts:
            return False
        logger.info("the ETags of %s are no MD5s: content is not compared with them", self.uri)
        _has_md5_tags[place] = False
        return True

    def _place(self) -> tuple[str, bool]:
        return self.client.meta.endpoint_url, self.bucket.endswith("--x-s3")

    def stat(self, key: str) -> ObjectInfo | None:
        """Look an object up with a HEAD request."""
        try:
            with s3_errors(f"look up {self.uri}/{key}", permission="s3:GetObject and s3:ListBucket", key=key):
                head = self._ask(lambda s3: s3.head_object(Bucket=self.bucket, Key=self.prefix + key))
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
            answer = self._ask(lambda s3: s3.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data))
        # A workspace that is written tells this of the whole store, before the first image comes from it.
        if _tag(answer.get("ETag", "")) == hashlib.md5(data, usedforsecurity=False).hexdigest():
            _has_md5_tags[self._place()] = True
        return True

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """Collect the stream in a temporary file on local disk, then upload it, in parts if it is large."""
        with tempfile.TemporaryFile(prefix="vouch-") as file:
            with _local_disk():
                yield cast(BinaryIO, file)
                size = file.seek(0, os.SEEK_END)

            def send(s3: "S3Client") -> None:
                file.seek(0)
                s3.upload_fileobj(file, self.bucket, self.prefix + key)

            with s3_errors(f"write {self.uri}/{key} ({size} bytes)", permission="s3:PutObject"):
                self._ask(send)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(ObjectMissingError), s3_errors(f"delete {self.uri}/{key}", permission="s3:DeleteObject", key=key):
            self._ask(lambda s3: s3.delete_object(Bucket=self.bucket, Key=self.prefix + key))

    def local_path(self, key: str) -> None:
        """Nothing of a bucket lies on local disk."""

    def _put_if_absent(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        token = secrets.token_hex(16)
        with s3_errors(f"write {self.uri}/{key}", permission="s3:PutObject"):
            for wait in (*CONFLICT_WAITS_S, None):
                try:
                    self._ask(
                        lambda s3: s3.put_object(
                            Bucket=self.bucket,
                            Key=self.prefix + key,
                            Body=data,
                            IfNoneMatch="*",
                            Metadata={WRITER: token},
                        )
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
            head = self._ask(lambda s3: s3.head_object(Bucket=self.bucket, Key=self.prefix + key))
        return head["Metadata"].get(WRITER) == token

    def _ask(self, request: "Callable[[S3Client], T]") -> T:
        """Make a request; where its credentials are not taken any more and others are there, once more with those."""
        from botocore.exceptions import ClientError, LoginError, SSOError, TokenRetrievalError

        client = self.client
        try:
            return request(client)
        except (ClientError, LoginError, SSOError, TokenRetrievalError) as error:
            if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") not in OUTDATED:
                raise
            fresh = _renewed(self.options, client)
            if fresh is None:
                raise
        return request(fresh)


def _broken_off() -> tuple[type[Exception], ...]:
    """What reading an answer raises that breaks off, or does not fit its checksum."""
    from botocore.exceptions import (
        FlexibleChecksumError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    return FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError


def _tag(etag: str) -> str:
    return etag.strip('"')


def _take_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, object], **_: object) -> None:
    """Take the objects out of a listing before botocore parses it, which takes ten times as long (55 ms a page).

    What is not as expected stays, for botocore to parse or to complain of.
    """
    try:
        root = ElementTree.fromstring(response_dict["body"])  # noqa: S314 - botocore does so too
        space = root.tag.removesuffix("ListBucketResult")
        if response_dict["status_code"] != 200 or space == root.tag:
            return
        found = root.findall(f"{space}Contents")
        contents = []
        for item in found:
            of = {part.tag: part.text or "" for part in item}
            contents.append({"Key": of[f"{space}Key"], "ETag": of[f"{space}ETag"], "Size": int(of[f"{space}Size"])})
    except (ElementTree.ParseError, KeyError, ValueError):
        return
    for item in found:
        root.remove(item)
    response_dict["body"] = ElementTree.tostring(root)
    customized_response_dict["Contents"] = contents


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
    identity = _identity(options)
    with _lock:
        if identity not in _clients:
            _clients[identity] = _connect(options)
        return _clients[identity].client


def _identity(options: S3Options) -> tuple[object, ...]:
    return os.getpid(), options, *(os.environ.get(name) for name in ENVIRONMENT)


def _renewed(options: S3Options, used: "S3Client") -> "S3Client | None":
    """The client to try after one whose credentials were not taken; None where boto3 finds no other credentials.

    Whoever rotates keys writes them into the shared credentials file, which boto3 reads once a session.
    """
    identity = _identity(options)
    with _lock:
        current = _clients.get(identity)
        if current is not None and current.client is not used:
            return current.client  # another thread was first
        fresh = _connect(options)
        key = _key(fresh.session)
        if key is None or (current is not None and key == _key(current.session)):
            return None
        logger.info("the store did not take the credentials any more: going on with those that are there now")
        _clients[identity] = fresh
        return fresh.client


def _key(session: "Session") -> tuple[str | None, str | None, str | None] | None:
    from botocore.exceptions import BotoCoreError

    try:
        credentials = session.get_credentials()
        frozen = None if credentials is None else credentials.get_frozen_credentials()
    except BotoCoreError:
        return None
    return None if frozen is None else (frozen.access_key, frozen.secret_key, frozen.token)


def _connect(options: S3Options) -> _Connection:
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
        session = Session()
        client = session.client(
            "s3", endpoint_url=options.endpoint_url, region_name=options.region or None, config=config
        )
        # Before the handler of botocore that parses the whole body for an error; after it, it would only take longer.
        client.meta.events.register_first("before-parse.*.ListObjectsV2", _take_contents)
    except (BotoCoreError, ValueError) as error:
        raise StoreAccessError(f"cannot set up S3: {without_secrets(str(error))}; check s3: and AWS_*") from error
    return _Connection(client, session)


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
    "RequestExpired": "the credentials have expired, or this machine's clock is wrong; log in again, or set it right",
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
    "InvalidClientTokenId": "InvalidAccessKeyId",
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
}

OUTDATED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
    # Answers to HEAD, which have no body to name a code.
    "400",
    "401",
    "403",
}
"""Codes that credentials bring which have expired, or were replaced in the meantime."""


@contextmanager
def s3_errors(what: str, *, permission: str, key: str | None = None) -> Iterator[None]:
    """Turn botocore's errors into one line each.

    Args:
        what: What is being done, "read s3://bucket/key".
        permission: Name of the permission that it needs, "s3:GetObject".
        key: The object, where its absence is an error.

    Raises:
        ObjectMissingError: The object does not exist.
        ObjectChangedError: It is not the version that was asked for.
        ObjectRefusedError: Access to the object is denied.
        ObjectArchivedError: The object is in an archive, and has not been restored.
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
    if key is not None and (code in CHANGED or status in CHANGED):
        return ObjectChangedError(f"cannot {what}: it has changed since")
    if code in ARCHIVED:
        return ObjectArchivedError(f"cannot {what}: {RESTORE}")
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
    elif isinstance(error, e.FlexibleChecksumError):
        return StoreError(f"cannot {what}: {DAMAGED}")
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
