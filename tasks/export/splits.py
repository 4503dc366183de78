"""Assigns images to train, val and test by a seeded hash."""

import hashlib
from typing import Final

from schemas.campaign import Splits

SPLITS: Final = ("train", "val", "test")


def split_of(splits: Splits, identity: str) -> str:
    """Name the split of an image.

    The hash of the seed and the identity, as a number in [0, 1), is held against the cumulated shares. So an image
    keeps its split whatever other images come or go, and equal identities always share one.

    Args:
        splits: Shares and seed.
        identity: SHA-256 of the image's content, or its key where that is unknown.

    Returns:
        train, val or test; never one whose share is 0.
    """
    digest = hashlib.sha256(f"{splits.seed}\n{identity}".encode()).digest()
    # 53 bits, so that the division is exact and the quotient stays below 1.
    place = (int.from_bytes(digest[:8]) >> 11) / 2**53
    shares = [(name, share) for name in SPLITS if (share := getattr(splits, name)) > 0]
    edge = 0.0
    for name, share in shares:
        edge += share
        if place < edge:
            return name
    # Shares may sum to a hair less than 1.
    return shares[-1][0]
