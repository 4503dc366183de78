"""Labels and objects of one image as arrays, and how much they overlap."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rle: TypeAlias = dict[str, Any]
"""A mask as pycocotools has it: size [height, width] and compressed counts."""


class ImageLabels(NamedTuple):
    """The labels of one image."""

    class_index: NDArray[np.int64]
    """(N,) places in the list of classes."""
    xyxy: NDArray[np.float32]
    """(N, 4) pixels of the EXIF-oriented original, right and bottom exclusive."""
    accepted: NDArray[np.bool_]
    """(N,) whether a policy accepted it."""
    signals: dict[str, NDArray[np.float32]]
    """(N,) each, NaN where missing; detector_score is among them."""
    masks: list[Rle] | None = None
    """N masks of the image's size; None when masks are not compared."""


class ImageObjects(NamedTuple):
    """The objects that are in one image according to the truth."""

    class_index: NDArray[np.int64]
    """(M,) places in the list of classes."""
    xywh: NDArray[np.float64]
    """(M, 4) left, top, width and height in the same frame."""
    crowd: NDArray[np.bool_]
    """(M,) regions in which labels are neither right nor wrong."""
    masks: list[Rle] | None = None
    """M masks of the image's size; None when masks are not compared."""


def xywh_of(xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, 4) left, top, width and height of (N, 4) corners; boxes turned inside out have no extent."""
    corners = xyxy.astype(np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], np.maximum(corners[:, 2:] - corners[:, :2], 0)], axis=1)


def overlaps(labels: ImageLabels, objects: ImageObjects) -> NDArray[np.float64]:
    """Intersection over union of every label's box with every object's, as COCO counts it.

    Returns:
        (N, M) in [0, 1]; for crowds the intersection over the label's own area.
    """
    from pycocotools import mask as mask_utils

    shape = (len(labels.class_index), len(objects.class_index))
    if 0 in shape:
        return np.zeros(shape)
    found = mask_utils.iou(xywh_of(labels.xyxy), objects.xywh.astype(np.float64), objects.crowd.astype(np.uint8))
    # A label without extent divides by nothing where it meets a crowd.
    return np.nan_to_num(np.asarray(found, np.float64), nan=0.0, posinf=0.0).reshape(shape)
