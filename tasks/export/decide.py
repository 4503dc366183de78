"""Decides what becomes of labels and images in a data set: annotation, crowd region, nothing; and which split.

Verdicts go before the policy's decisions. Images are assigned to train, val and test by a seeded hash.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from vouch_labels.schemas.campaign import Splits, Undecided
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.store.source import frame_of

ExportStatus = Literal[
    "accepted", "kept", "corrected", "added", "rejected", "duplicate", "undecided", "dropped", "unusable", "left_out"
]
"""A field of ClassCounts."""

SPLITS: Final = ("train", "val", "test")
LEAST_SEEN: Final = 0.5
"""Share of a plain label's box that regions filled with grey must leave, or its image is left out."""


def exported_box(label: ExportLabel, image: ExportImage) -> tuple[float, float, float, float] | None:
    """The box as xyxy in pixels of the upright image, rounded to 1/100; None if it has no extent inside the image."""
    x0, y0, x1, y1 = (round(value, 2) if math.isfinite(value) else math.nan for value in label.xyxy)
    # Also false for what is not a number.
    return (x0, y0, x1, y1) if 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height else None


def mask_box(label: ExportLabel, image: ExportImage) -> tuple[float, float, float, float] | None:
    """As `exported_box`, of the extent of the label's mask; its own box where it has no mask, or an empty one."""
    if label.rle_counts is None or not label.area:
        return exported_box(label, image)
    from pycocotools import mask as mask_utils

    x, y, width, height = mask_utils.toBbox({"size": [image.height, image.width], "counts": label.rle_counts}).tolist()
    return x, y, x + width, y + height


def export_status(label: ExportLabel, undecided: Undecided) -> tuple[ExportStatus, bool]:
    """Say how a label ends, its box aside, and whether it is a crowd region.

    Verdicts go before the policy's decision. An object of unknown class or extent is never a plain label, even where
    unreviewed ones are: it is known to be wrong as it stands.
    """
    if label.reviewed in ("kept", "corrected", "added", "rejected", "duplicate"):
        return label.reviewed, False
    if label.decision == "accept" and not label.reviewed:
        return "accepted", False
    if undecided not in ("ignore", "include"):
        return "dropped", False
    return "undecided", undecided == "ignore" or label.reviewed == "unclear"


def waiting(image: ExportImage) -> list[ExportLabel]:
    """Labels of an image that wait for people."""
    return [label for label in image.labels if export_status(label, "ignore")[0] == "undecided"]


def is_left_out(image: ExportImage, undecided: Undecided) -> bool:
    """Whether a label that waits keeps the whole image out of the data set.

    With drop_image every one does, with blank one that hides more than half of a plain label.
    """
    if undecided not in ("drop_image", "blank") or not (doubtful := waiting(image)):
        return False
    if undecided == "drop_image":
        return True
    hidden = np.zeros((image.height, image.width), np.bool_)
    for x0, y0, x1, y1 in regions(doubtful, image):
        hidden[y0:y1, x0:x1] = True
    for label in image.labels:
        if export_status(label, "drop")[0] in ("accepted", "kept", "corrected", "added"):
            ((x0, y0, x1, y1),) = regions([label], image)
            seen = ~hidden[y0:y1, x0:x1]
            if seen.size and seen.mean() < LEAST_SEEN:
                return True
    return False


def regions(labels: Sequence[ExportLabel], image: ExportImage) -> list[tuple[int, int, int, int]]:
    """Pixels that boxes touch, as xyxy, right and bottom exclusive; all of the image for a box that is no number."""
    found = []
    for label in labels:
        if all(map(math.isfinite, label.xyxy)):
            x0, y0, x1, y1 = label.xyxy
            columns, rows = (max(0, math.floor(x0)), math.ceil(x1)), (max(0, math.floor(y0)), math.ceil(y1))
            found.append((columns[0], rows[0], min(image.width, columns[1]), min(image.height, rows[1])))
        else:
            found.append((0, 0, image.width, image.height))
    return found


def not_exhaustive(
    image: ExportImage, statuses: Sequence[ExportStatus], class_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Name the classes of which an image may show objects without a plain annotation, in their order.

    Those that the image was not searched for; and of those searched for, the ones that a label in doubt may be of: its
    own class, every class if verdicts say that its own is wrong and not which one is right.
    """
    if not image.checked:
        return class_names
    known = set(image.checked)
    for label, status in zip(image.labels, statuses, strict=True):
        if status in ("undecided", "dropped", "unusable"):
            known -= known if label.verdict == "wrong_class" else {label.class_name}
    return tuple(name for name in class_names if name not in known)


def split_of_image(splits: Splits | None, image: ExportImage) -> str | None:
    """Name the split of an image; None where there are none.

    Frames of one video look alike, so they are never in several.
    """
    if splits is None:
        return None
    frame = frame_of(image.key)
    return split_of(splits, frame[0] if frame else image.sha256 or image.key)


def split_of(splits: Splits, identity: str) -> str:
    """Name the split of an image, never one whose share is 0.

    The hash of the seed and the identity, as a number in [0, 1), is held against the cumulated shares. So an image
    keeps its split whatever other images come or go, and equal identities always share one. identity is the SHA-256 of
    its content, or its key where that is unknown; of a frame the key of its video.
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
