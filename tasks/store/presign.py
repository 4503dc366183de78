"""Makes addresses by which a browser may fetch one object of a bucket for a short time."""

from urllib.parse import urlsplit

from tasks.store.s3 import S3Store
from tasks.store.s3_errors import s3_errors
from tasks.store.store import Store


def presigned_url(store: Store, key: str, seconds: int) -> str | None:
    """Sign an address that reads one object; no request is made.

    Args:
        store: Where the object lies.
        key: The object's.
        seconds: How long the address works.

    Returns:
        The address, which is a secret as long as it works; None when the store is no bucket.

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
