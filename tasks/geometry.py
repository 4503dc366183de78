"""Arithmetic on boxes: (N, 4) xyxy in pixels, right and bottom exclusive."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def box_area(boxes: Boxes) -> NDArray[np.float64]:
    """Areas of (N, 4) boxes in square pixels; 0 for boxes turned inside out."""
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas


def box_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every box of one set with every box of the other.

    Args:
        first: (N, 4) boxes.
        second: (M, 4) boxes.

    Returns:
        (N, M) in [0, 1]; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return _ratio(low, high, box_area(first)[:, None], box_area(second)[None, :])


def paired_box_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of box i of one set with box i of the other.

    Args:
        first: (N, 4) boxes.
        second: (N, 4) boxes.

    Returns:
        (N,) in [0, 1]; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, 2:], second[:, 2:])
    return _ratio(low, high, box_area(first), box_area(second))


def clip_boxes(boxes: Boxes, width: int, height: int) -> Boxes:
    """(N, 4) boxes cut to an image of width x height pixels, as float32."""
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, 0, limits).astype(np.float32)


def _ratio(
    low: Boxes, high: Boxes, first_area: NDArray[np.float64], second_area: NDArray[np.float64]
) -> NDArray[np.float64]:
    sides = np.maximum(high.astype(np.float64) - low, 0)
    common = sides[..., 0] * sides[..., 1]
    union = first_area + second_area - common
    iou: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    return np.clip(iou, 0, 1)
