"""Training images for the segmenter: parts of drawn scenes with jittered boxes and true masks."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starter.train.cache import SceneCache

_MOST_BOXES = 6
_LEAST_PIXELS = 60


@dataclass(frozen=True)
class SegmenterImage:
    """One image and some of its objects.

    Attributes:
        pixels: (3, H, W) float32 RGB in [0, 255]; the longer side is the model's input side.
        boxes: (K, 4) float32 xyxy in pixels, not exact.
        masks: (K, H, W) float32, 0 or 1.
    """

    pixels: Tensor
    boxes: Tensor
    masks: Tensor


def segmenter_image(rng: np.random.Generator, scenes: SceneCache, index: int, side: int) -> SegmenterImage | None:
    """Cut a part out of a scene, of any aspect, and enlarge it to the input side.

    Args:
        rng: Source of all choices.
        scenes: Square scenes.
        index: Which of them.
        side: Longer side of the result in pixels.

    Returns:
        The image, or None if the part shows no object.
    """
    image = scenes.images[index]
    full = image.shape[0]
    width, height = (int(full * (1.0 if rng.random() < 0.5 else rng.uniform(0.6, 1.0))) for _ in range(2))
    left, top = int(rng.integers(full - width + 1)), int(rng.integers(full - height + 1))
    view = image[top : top + height, left : left + width]
    whole = np.unpackbits(scenes.masks[index], axis=-1, count=full)
    masks = whole[:, top : top + height, left : left + width]
    # Half of an object at an image's edge is still that object; a sliver is not.
    shown = masks.sum((1, 2)) >= np.maximum(0.3 * whole.sum((1, 2)), _LEAST_PIXELS)
    kept = rng.permutation(np.flatnonzero(shown))[:_MOST_BOXES]
    if not len(kept):
        return None
    scale = side / max(width, height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    pixels = np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_LINEAR), np.float32)
    enlarged = np.stack([cv2.resize(masks[k].astype(np.float32), size, interpolation=cv2.INTER_LINEAR) for k in kept])
    enlarged = (enlarged > 0.5).astype(np.float32)
    if rng.random() < 0.5:
        pixels, enlarged = pixels[:, ::-1], enlarged[:, :, ::-1]
    pixels = np.clip(pixels * rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3), 0, 255).astype(np.float32)
    boxes = np.stack([_box(rng, mask) for mask in enlarged])
    return SegmenterImage(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        torch.from_numpy(boxes),
        torch.from_numpy(np.ascontiguousarray(enlarged)),
    )


def _box(rng: np.random.Generator, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mask's box, mostly a little wrong, as a detector's boxes are."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    exact = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    size = np.array([exact[2] - exact[0], exact[3] - exact[1]] * 2, np.float32)
    amount = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.01, 0.07))
    jitter = np.clip(rng.normal(0, amount, 4), -0.15, 0.15).astype(np.float32)
    limit = np.array([mask.shape[1], mask.shape[0]] * 2, np.float32)
    return np.asarray(np.clip(exact + jitter * size, 0, limit), np.float32)
