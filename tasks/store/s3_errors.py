"""Says in one line what an S3 store or boto3 complained about, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from schemas.errors import ObjectMissingError, ObjectRefusedError, StoreAccessError, StoreError, VouchError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

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
"""Codes that the user can mend."""

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

FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity", "507"}
BUSY = {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "RequestLimitExceeded", "429", "503"}


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
        StoreAccessError: Something that the user can mend: the bucket, credentials, endpoint, region.
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
