"""The confusion matrix."""

import numpy as np

from tasks.evaluate.confusion import BACKGROUND, ConfusionCounts


def test_a_hand_counted_image():
    counts = ConfusionCounts(2)
    counts.add(
        label_class=np.array([0, 1, 1, 0, 0]),
        object_class=np.array([0, 0, 1, 1]),
        matched=np.array([0, 1, -1, -1, -1]),
        ignored=np.array([False, False, False, True, False]),
        crowd=np.array([False, False, False, True]),
    )
    found = counts.named(["a", "b"])
    assert found.names == ("a", "b", BACKGROUND)
    # a on a; b on a; b and a on nothing; the third object missed; the crowd and what lies on it left out.
    assert found.counts == ((1, 0, 1), (1, 0, 1), (0, 1, 0))


def test_images_without_labels_add_up():
    counts = ConfusionCounts(1)
    none = np.zeros(0, np.int64)
    for _ in range(3):
        counts.add(none, np.array([0, 0]), none, none.astype(bool), np.zeros(2, bool))
    assert counts.named(["a"]).counts == ((0, 0), (6, 0))
