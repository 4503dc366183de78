"""The right answers about the labels of one image, from its ground truth."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.reviews import LABEL_VERDICTS
from tasks.evaluate.arrays import ImageLabels, ImageObjects, overlaps
from tasks.evaluate.matching import NOT_MATCHED, match_labels, match_the_rest, ranking

CORRECT, WRONG_CLASS, BAD_BOX, NOT_AN_OBJECT = range(len(LABEL_VERDICTS))
UNKNOWN: Final = -1
"""No answer: no truth for its image or class, or it lies on a crowd region."""
LEAST_OVERLAP: Final = 0.1
"""IoU with an object of its class from which on a label that finds it badly is mended, not thrown away."""


class Answer(NamedTuple):
    """The right answers about the N labels of one image, and the objects that it leaves."""

    verdict: NDArray[np.int8]
    """(N,) place in LABEL_VERDICTS, or UNKNOWN."""
    object: NDArray[np.int64]
    """(N,) the object that the label shows, well or badly, or NOT_MATCHED."""
    missed: NDArray[np.int64]
    """Objects that no label shows."""


def answer_image(labels: ImageLabels, objects: ImageObjects) -> Answer:
    """Give the right answers about the labels of one image.

    A label that is on no free object of its class is, in this order: on a crowd region of its class (UNKNOWN); on a
    free object of another class (wrong_class); a bad box of a free object of its class (bad_box, each object once); or
    a second box, a part or nothing (not_an_object).

    Args:
        labels: Labels with their detector_score.
        objects: What is really there.
    """
    iou = overlaps(labels, objects)
    score = labels.signals["detector_score"]
    order = ranking(score, score)
    matches = match_labels(iou, labels.class_index, objects.class_index, objects.crowd, order)
    shown = match_the_rest(matches, iou, objects.crowd, order)
    verdict = np.where(matches.object != NOT_MATCHED, CORRECT, NOT_AN_OBJECT).astype(np.int8)
    verdict[(shown != NOT_MATCHED) & (verdict != CORRECT)] = WRONG_CLASS
    rest = np.array([place for place in order if shown[place] == NOT_MATCHED and not matches.ignored[place]], np.int64)
    free = ~objects.crowd
    free[shown[shown != NOT_MATCHED]] = False
    badly = match_labels(iou[:, free], labels.class_index, objects.class_index[free], ~free[free], rest, LEAST_OVERLAP)
    found = badly.object != NOT_MATCHED
    shown[found], verdict[found] = np.flatnonzero(free)[badly.object[found]], BAD_BOX
    verdict[matches.ignored] = UNKNOWN
    missed = ~objects.crowd
    missed[shown[shown != NOT_MATCHED]] = False
    return Answer(verdict, shown, np.flatnonzero(missed))
