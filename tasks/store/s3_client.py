"""One boto3 client per process and way of speaking to a store, shared by all threads."""

import os
import threading
from typing import TYPE_CHECKING

from schemas.campaign import S3Options
from schemas.errors import StoreAccessError
from tasks.store.s3_errors import without_secrets

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

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

_clients: dict[tuple[object, ...], "S3Client"] = {}
_lock = threading.Lock()


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
