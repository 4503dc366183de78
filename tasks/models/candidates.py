"""What detector backends share: passes of a model put together into the candidates of an image."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from tasks.models.protocols import Floats, RawDetections

Item = TypeVar("Item")


class Pass(NamedTuple):
    """What one forward pass says of one image."""

    found: Floats
    """(Q, 4 + P) centre x, y, width and height as shares of what the model saw, then scores of its phrases."""
    phrases: Sequence[int]
    """(P,) indices of its phrases into those asked for."""


def assemble(
    passes: Sequence[Pass], phrases: int, seen: tuple[float, float], size: tuple[int, int], min_score: float
) -> RawDetections:
    """Put the passes of one image together.

    Args:
        passes: In the order asked.
        phrases: How many were asked for in all.
        seen: Width and height, in pixels of the image, of what the model saw; more than the image where it was padded.
        size: Width and height of the image.
        min_score: Boxes without a phrase at or above it are left out.

    Returns:
        Boxes in pixels clipped to the image, with a score of every phrase, 0 for those of other passes. If a number is
        not finite: one empty box with scores of NaN.
    """
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros((0, phrases), np.float32)]
    for found, columns in passes:
        if not np.isfinite(found).all():
            return RawDetections(np.zeros((1, 4), np.float32), np.full((1, phrases), np.nan, np.float32))
        kept = found[found[:, 4:].max(axis=1, initial=0) >= min_score]
        half = kept[:, 2:4] / 2
        corners = np.concatenate([kept[:, :2] - half, kept[:, :2] + half], axis=1) * np.array(
            [*seen, *seen], np.float32
        )
        spread = np.zeros((len(kept), phrases), np.float32)
        spread[:, list(columns)] = kept[:, 4:]
        boxes.append(np.clip(corners, 0, np.array([*size, *size], np.float32)))
        scores.append(spread)
    return RawDetections(np.concatenate(boxes), np.concatenate(scores))


def each_its_own(forward: Callable[[Sequence[Item]], list[list[Floats]]], items: Sequence[Item]) -> list[list[Floats]]:
    """Run a batch, and again one by one when a number is not finite, so that one image does not spoil the others.

    Some models couple the images of a batch (a maximum over all is subtracted before a softmax), which changes nothing
    as long as all numbers are finite.
    """
    found = forward(items)
    if len(items) == 1 or all(np.isfinite(block).all() for blocks in found for block in blocks):
        return found
    return [forward([item])[0] for item in items]
