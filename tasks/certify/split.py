"""Keeps the images that labels are reviewed in for fitting apart from those that certify.

Verdicts on the fit side train the calibrator and order the thresholds; the certification sample is drawn from the other
side alone. What is certified is therefore stated of the certify side. A batch in which the fit side is small keeps the
rest of that side for people: `fit_share` makes it just large enough. (Drawn afresh with our own seed from the whole
batch, a sample would certify the whole batch even with images on both sides, for such a bound rests on the draw alone;
but a policy outlives its batch, and scores of images that trained them flatter what later batches will get.)
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from tasks.certify.bounds import Bools

ROOM: Final = 1.5
"""Labels on the fit side for each one that is to be reviewed there, so that strata have something to choose from."""
LARGEST: Final = 0.5


def fit_share(labels: int, reviews: int) -> float:
    """Share of images to put on the fit side.

    Args:
        labels: Labels of the batch.
        reviews: Labels to be reviewed for fitting.

    Returns:
        Enough for `ROOM` times the reviews, at most `LARGEST`; 0 without labels.
    """
    return min(LARGEST, ROOM * reviews / labels) if labels else 0.0


def on_fit_side(images: Sequence[str], share: float, seed: int) -> Bools:
    """Say of each image whether it is on the fit side.

    The SHA-256 of seed and identity, as a number in [0, 1), is held against the share: an image keeps its side
    whatever other images come or go, and copies of one image share theirs.

    Args:
        images: M identities: SHA-256 of the content, or keys where that is unknown.
        share: Share of the fit side, in [0, 1].
        seed: Seed of the split; another one than that of the export's splits gives an independent split.

    Returns:
        (M,) True for the fit side.
    """
    digests = (hashlib.sha256(f"certify\n{seed}\n{image}".encode()).digest() for image in images)
    # 53 bits, so that the division is exact and the quotient stays below 1.
    places = ((int.from_bytes(digest[:8]) >> 11) / 2**53 for digest in digests)
    return np.fromiter(places, np.float64, len(images)) < share
