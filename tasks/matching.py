"""Matches the labels of an image to its objects, each object once, as COCO's evaluation does."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLD = 0.5
NOT_MATCHED = -1
CORRECT, WRONG, IGNORED = 1, 0, -1
"""Outcomes of a label."""

Rle: TypeAlias = dict[str, Any]
"""A mask as pycocotools has it: size [height, width] and compressed counts."""


class Matches(NamedTuple):
    """What became of N labels."""

    object: NDArray[np.int64]
    """(N,) place of the label's object, NOT_MATCHED without one."""
    ignored: NDArray[np.bool_]
    """(N,) whether it is on a crowd region instead."""

    @property
    def outcome(self) -> NDArray[np.int8]:
        """(N,) CORRECT, WRONG or IGNORED."""
        outcomes = np.where(self.object != NOT_MATCHED, CORRECT, np.where(self.ignored, IGNORED, WRONG))
        return outcomes.astype(np.int8)


def ranking(signal: NDArray[np.float32], score: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of N labels, best signal first, missing values (NaN) last; equal ones by score, then as they stand."""
    least = np.float64(-np.inf)
    keys = [np.where(np.isfinite(values), values.astype(np.float64), least) for values in (score, signal)]
    return np.lexsort([-values for values in keys]).astype(np.int64)


def match_labels(
    iou: NDArray[np.float64],
    label_class: NDArray[np.int64],
    object_class: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    order: NDArray[np.int64],
    threshold: float = IOU_THRESHOLD,
) -> Matches:
    """Give each label, in the order given, the free object of its class that it overlaps most.

    The rule of COCOeval.evaluateImg in pycocotools: a label that finds no free object of at least the threshold, but
    a crowd region of its class, is ignored; equal overlaps go to the later object.

    Args:
        iou: (N, M) overlaps; for crowds the intersection over the label's area.
        label_class: (N,) class of each label.
        object_class: (M,) class of each object.
        crowd: (M,) crowd regions.
        order: (N,) places of the labels, best first; those that are not named stay unmatched.
        threshold: Least overlap.
    """
    matched = np.full(len(label_class), NOT_MATCHED, np.int64)
    ignored = np.zeros(len(label_class), np.bool_)
    fits = (iou >= min(threshold, 1 - 1e-10)) & (label_class[:, None] == object_class[None, :])
    free = ~crowd
    for place in order.tolist():
        candidates = np.flatnonzero(fits[place] & free)
        if len(candidates):
            best = _best(iou[place], candidates)
            matched[place] = best
            free[best] = False
        else:
            ignored[place] = bool((fits[place] & crowd).any())
    return Matches(matched, ignored)


def match_the_rest(
    matches: Matches,
    iou: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    order: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Give labels that are on no object of their class a free one of any class, to say what they were taken for.

    Arguments are those of `match_labels`; nothing is matched to crowds.

    Returns:
        (N,) places of the objects, NOT_MATCHED without one.
    """
    matched = matches.object.copy()
    free = ~crowd
    free[matched[matched != NOT_MATCHED]] = False
    for place in order.tolist():
        if matched[place] == NOT_MATCHED and not matches.ignored[place]:
            candidates = np.flatnonzero((iou[place] >= IOU_THRESHOLD) & free)
            if len(candidates):
                matched[place] = _best(iou[place], candidates)
                free[matched[place]] = False
    return matched


def _best(overlap: NDArray[np.float64], candidates: NDArray[np.int64]) -> int:
    """Of the candidates the one with the greatest overlap, the last of equals."""
    return int(candidates[::-1][np.argmax(overlap[candidates][::-1])])


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
    """(N, M) intersection over union of the labels' boxes with the objects'; for crowds over the label's own area."""
    from pycocotools import mask as mask_utils

    shape = (len(labels.class_index), len(objects.class_index))
    if 0 in shape:
        return np.zeros(shape)
    found = mask_utils.iou(xywh_of(labels.xyxy), objects.xywh.astype(np.float64), objects.crowd.astype(np.uint8))
    # A label without extent divides by nothing where it meets a crowd.
    return np.nan_to_num(np.asarray(found, np.float64), nan=0.0, posinf=0.0).reshape(shape)
