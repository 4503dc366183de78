"""Checkpoints in object storage, cached by their ETag."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import CheckpointError, VouchError
from tasks.fingerprint import fingerprint
from tasks.models.weights.cache import cache_folder

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def bucket_file(reference: str, where: str, download: bool) -> Path:
    """Path of the local copy of an s3:// object.

    Credentials, region and endpoint come from boto3's own chain (AWS_ENDPOINT_URL for S3-compatible stores). The
    object is asked for its ETag each time; a copy with that ETag is not fetched again.

    Args:
        reference: s3://bucket/key.
        where: What asked for it, for messages.
        download: Whether to fetch what is not here yet.

    Raises:
        CheckpointError: There is no such object, access is refused, the store does not answer, or the object is not
            here and must not be fetched.
        VouchError: The disk is full or cannot be written.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = reference.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise CheckpointError(f"{where}: {reference} names no file; write s3://bucket/key")
    options = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        client = boto3.client("s3", config=options)
        etag = client.head_object(Bucket=bucket, Key=key)["ETag"]
        target = cache_folder() / "s3" / fingerprint(client.meta.endpoint_url, bucket, key, etag) / Path(key).name
        if target.is_file():
            return target
        if not download:
            raise CheckpointError(f"{where}: {reference} is not on this machine yet; run `vouch models pull`")
        _fetch(client, bucket, key, target)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown error")
        raise CheckpointError(f"{where}: {reference}: {_REASONS.get(code, f'the store answered {code}')}") from error
    except BotoCoreError as error:
        raise CheckpointError(
            f"{where}: {reference}: {type(error).__name__}; check AWS_ENDPOINT_URL, region and credentials"
        ) from error
    except OSError as error:
        raise VouchError(
            f"{where}: cannot keep {reference}: {error.strerror or error}; free space or set VOUCH_CACHE"
        ) from error
    return target


_MISSING = "no such object; check bucket and key"
_REFUSED = "access is refused; check the credentials and the bucket's policy"
_REASONS = {
    "404": _MISSING,
    "NoSuchKey": _MISSING,
    "NoSuchBucket": "no such bucket; check its name and region",
    "403": _REFUSED,
    "AccessDenied": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
}


def _fetch(client: "S3Client", bucket: str, key: str, target: Path) -> None:
    """Stream the object to a temporary file and move it in place, so that a killed download leaves no half file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            client.download_fileobj(bucket, key, file)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
