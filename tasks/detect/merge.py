"""Decides which candidate boxes are one object."""

import numpy as np
from numpy.typing import NDArray

from tasks.boxes_masks import box_iou
from tasks.models.registry import Floats


def merge_duplicates(boxes: Floats, strengths: Floats, scores: Floats, iou: float) -> tuple[NDArray[np.int64], Floats]:
    """Greedy non-maximum suppression over all classes together.

    Candidates are taken by strength, the greatest first, equal ones in the order given; each takes in every later one
    that overlaps it by more than `iou`, of whatever class. The one that stays gets, text by text, the greatest score
    of all that it took in, so that a class that only another pass asked for still counts as its runner-up.

    Args:
        boxes: (N, 4) xyxy.
        strengths: (N,) what the candidates are ordered by.
        scores: (N, P) score of each text.
        iou: Overlap above which two boxes are one object.

    Returns:
        Indices (M,) of those that stay, strongest first, and their (M, P) joint scores.
    """
    free = np.ones(len(boxes), np.bool_)
    kept, joint = [], []
    for index in np.argsort(-strengths, kind="stable"):
        if not free[index]:
            continue
        rest = np.flatnonzero(free)  # row by row, since all pairs of thousands of candidates would fill the memory
        taken = rest[(box_iou(boxes[index][None], boxes[rest])[0] > iou) | (rest == index)]
        free[taken] = False
        kept.append(index)
        joint.append(scores[taken].max(axis=0))
    if not kept:
        return np.zeros(0, np.int64), np.zeros((0, scores.shape[1]), np.float32)
    return np.array(kept, np.int64), np.stack(joint)
