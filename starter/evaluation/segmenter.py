"""Measures the segmenter: masks from true boxes against true masks."""

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.campaign import SegmenterConfig
from starter.evaluation.fresh import OTHER_STYLE, fresh_scene
from tasks.models.registry import Segmenter, load_segmenter
from tasks.models.runtime import Runtime

SEED = 13
_BATCH = 8
# Width of the boundary as a share of the image's diagonal, as the paper has it.
_BOUNDARY = 0.02

Mask = NDArray[np.bool_]


def measure_segmenter(count: int, config: SegmenterConfig | None = None) -> dict[str, float]:
    """Prompt a segmenter with the true boxes of freshly drawn scenes.

    Args:
        count: Scenes.
        config: Which segmenter; by default the bundled one.

    Returns:
        mean_iou over objects; boundary_iou likewise (Cheng et al., Boundary IoU, CVPR 2021, eq. 2); iou_error, the
        mean absolute error of the model's own estimate of its IoU; other_mean_iou, other_boundary_iou,
        other_iou_error (the same in the other emoji style).
    """
    segmenter = load_segmenter(config or SegmenterConfig(), Runtime("cpu", "fp32"))
    other = _of_style(segmenter, count, OTHER_STYLE)
    return _of_style(segmenter, count, "noto") | {f"other_{name}": value for name, value in other.items()}


def _of_style(segmenter: Segmenter, count: int, style: str) -> dict[str, float]:
    from pycocotools import mask as coco_mask

    overlaps: list[float] = []
    boundaries: list[float] = []
    errors: list[float] = []
    for start in range(0, count, _BATCH):
        scenes = [fresh_scene(SEED, index, "core", style) for index in range(start, min(start + _BATCH, count))]
        boxes = [np.asarray([item.xyxy for item in scene.objects], np.float32).reshape(-1, 4) for scene in scenes]
        answers = segmenter.segment([scene.image for scene in scenes], boxes)
        for scene, masks in zip(scenes, answers, strict=True):
            for item, counts, estimate in zip(scene.objects, masks.rle_counts, masks.predicted_iou, strict=True):
                found = coco_mask.decode({"size": list(item.mask.shape), "counts": counts}).astype(bool)
                overlaps.append(_iou(found, item.mask))
                boundaries.append(_iou(_boundary(found), _boundary(item.mask)))
                errors.append(abs(float(estimate) - overlaps[-1]))
    return {
        "mean_iou": float(np.mean(overlaps)),
        "boundary_iou": float(np.mean(boundaries)),
        "iou_error": float(np.mean(errors)),
    }


def _iou(first: Mask, second: Mask) -> float:
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


def _boundary(mask: Mask) -> Mask:
    """Pixels of a mask that lie within the boundary's width of its edge; the image's edge counts as one."""
    width = max(round(_BOUNDARY * float(np.hypot(*mask.shape))), 1)
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = np.asarray(cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width), bool)[1:-1, 1:-1]
    return np.asarray(mask & ~inner, bool)
