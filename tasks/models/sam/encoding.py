"""Turns SAM's small mask logits into compressed COCO RLE, areas, boxes and stability scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from tasks.models.protocols import Masks
from tasks.models.sam.upscaling import Upscale
from tasks.rle import rle_of_crop

if TYPE_CHECKING:
    import torch

STABILITY_OFFSET: Final = 1.0
"""Logits added to and taken from the threshold; the default of the package's SamAutomaticMaskGenerator."""
PIXELS_AT_ONCE: Final = 1 << 24
"""Most mask pixels upscaled at once: 64 MiB of float32 logits."""


def encode_masks(small: "torch.Tensor", upscale: Upscale, threshold: float, iou: NDArray[np.float32]) -> Masks:
    """Upscale, threshold and describe the masks of one image, one after the other and only where each can be.

    Args:
        small: (N, s, s) float32 logits of the mask decoder, on any device.
        upscale: Takes them to the image's size.
        threshold: Logit above which a pixel belongs to the mask.
        iou: (N,) the model's own estimates.

    Returns:
        The masks; predicted IoU clipped to [0, 1]. Stability is
        |logits > threshold + 1| / |logits > threshold - 1| at the image's size (calculate_stability_score in
        segment_anything/utils/amg.py, with wide integers), 0 where nothing exceeds the lower cut.
    """
    reach = upscale.reach(small > threshold - STABILITY_OFFSET)
    counts: list[bytes] = []
    boxes = np.zeros((len(small), 4), dtype=np.float32)
    areas = np.zeros(len(small), dtype=np.int64)
    stability = np.zeros(len(small), dtype=np.float32)
    for place, (left, top, right, bottom) in enumerate(reach.tolist()):
        crop, stability[place] = _cut(small[place], upscale, threshold, (left, top, right, bottom))
        counts.append(rle_of_crop(crop, left, top, *upscale.size))
        areas[place] = crop.sum()
        boxes[place] = _box(crop, left, top)
    return Masks(counts, areas, boxes, np.clip(iou, 0, 1).astype(np.float32), stability)


def no_masks() -> Masks:
    """The masks of an image without boxes."""
    none = np.zeros(0, dtype=np.float32)
    return Masks([], np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32), none, none)


def join_masks(parts: Sequence[Masks]) -> Masks:
    """The masks of all parts as one, in order."""
    if not parts:
        return no_masks()
    return Masks(
        [counts for part in parts for counts in part.rle_counts],
        np.concatenate([part.areas for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.predicted_iou for part in parts]),
        np.concatenate([part.stability for part in parts]),
    )


def split_masks(masks: Masks) -> list[Masks]:
    """Each mask alone."""
    return [
        Masks(masks.rle_counts[one], masks.areas[one], masks.boxes[one], masks.predicted_iou[one], masks.stability[one])
        for one in (slice(place, place + 1) for place in range(len(masks.areas)))
    ]


def _cut(
    small: "torch.Tensor", upscale: Upscale, threshold: float, xyxy: tuple[int, int, int, int]
) -> tuple[NDArray[np.bool_], float]:
    """The mask in a part of the image, and its stability; a few columns at a time, so that memory is bounded."""
    left, top, right, bottom = xyxy
    crop = np.zeros((bottom - top, right - left), dtype=bool)
    if crop.size == 0:
        return crop, 0.0
    inner = outer = 0
    step = max(1, PIXELS_AT_ONCE // (bottom - top))
    for start in range(left, right, step):
        end = min(start + step, right)
        logits = upscale.part(small, (start, top, end, bottom))
        crop[:, start - left : end - left] = (logits > threshold).cpu().numpy()
        inner += int((logits > threshold + STABILITY_OFFSET).sum())
        outer += int((logits > threshold - STABILITY_OFFSET).sum())
    return crop, inner / outer if outer else 0.0


def _box(crop: NDArray[np.bool_], left: int, top: int) -> tuple[int, int, int, int]:
    """Xyxy around the true pixels of a crop, in pixels of the image; zeros without any."""
    columns, rows = np.flatnonzero(crop.any(axis=0)), np.flatnonzero(crop.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1
