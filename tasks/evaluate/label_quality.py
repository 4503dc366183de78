"""Precision and recall of labels, over all classes and for each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.evaluation import LabelQuality, Quality
from tasks.evaluate.matching import CORRECT, IGNORED, WRONG


def label_quality(
    class_index: NDArray[np.int32], outcome: NDArray[np.int8], objects: NDArray[np.int64], names: Sequence[str]
) -> LabelQuality:
    """Count right and wrong labels.

    Precision is correct / (correct + wrong), recall correct / objects; over all classes the counts are summed first,
    so that frequent classes weigh more.

    Args:
        class_index: (N,) class of each label.
        outcome: (N,) CORRECT, WRONG or IGNORED.
        objects: (K,) objects of each class in the truth, crowds aside.
        names: K class names.
    """
    counts = {
        value: np.bincount(class_index[outcome == value], minlength=len(names)) for value in (CORRECT, WRONG, IGNORED)
    }
    right, wrong, ignored = counts[CORRECT], counts[WRONG], counts[IGNORED]
    classes = {
        name: quality(int(right[place]), int(wrong[place]), int(ignored[place]), int(objects[place]))
        for place, name in enumerate(names)
    }
    whole = quality(int(right.sum()), int(wrong.sum()), int(ignored.sum()), int(objects.sum()))
    return LabelQuality(**whole.model_dump(), classes=classes)


def quality(correct: int, wrong: int, ignored: int, objects: int) -> Quality:
    """The figures that follow from the counts."""
    return Quality(
        labels=correct + wrong + ignored,
        correct=correct,
        wrong=wrong,
        ignored=ignored,
        objects=objects,
        precision=correct / (correct + wrong) if correct + wrong else None,
        recall=correct / objects if objects else None,
    )
