"""Precision and recall of labels."""

import numpy as np

from tasks.evaluate.label_quality import label_quality
from tasks.evaluate.matching import CORRECT, IGNORED, WRONG


def test_hand_counted_labels():
    found = label_quality(
        np.array([0, 0, 0, 1, 1], np.int32),
        np.array([CORRECT, CORRECT, WRONG, IGNORED, CORRECT], np.int8),
        np.array([4, 2, 3]),
        ["a", "b", "c"],
    )
    assert (found.labels, found.correct, found.wrong, found.ignored, found.objects) == (5, 3, 1, 1, 9)
    assert (found.precision, found.recall) == (3 / 4, 3 / 9)
    assert (found.classes["a"].precision, found.classes["a"].recall) == (2 / 3, 1 / 2)
    assert (found.classes["b"].precision, found.classes["b"].recall) == (1, 1 / 2)
    assert (found.classes["c"].precision, found.classes["c"].recall) == (None, 0)


def test_nothing_at_all():
    found = label_quality(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(1, np.int64), ["a"])
    assert (found.labels, found.precision, found.recall) == (0, None, None)
