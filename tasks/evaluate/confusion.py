"""Counts which class was labelled as which."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.evaluation import Confusion
from tasks.evaluate.matching import NOT_MATCHED

BACKGROUND = "(background)"


class ConfusionCounts:
    """A matrix of labelled class by true class, background last, that grows image by image."""

    def __init__(self, classes: int) -> None:
        """Begin with zeros for so many classes."""
        self._background = classes
        self.counts = np.zeros((classes + 1, classes + 1), np.int64)

    def add(
        self,
        label_class: NDArray[np.int64],
        object_class: NDArray[np.int64],
        matched: NDArray[np.int64],
        ignored: NDArray[np.bool_],
        crowd: NDArray[np.bool_],
    ) -> None:
        """Count one image.

        Args:
            label_class: (N,) class of each label.
            object_class: (M,) class of each object.
            matched: (N,) place of each label's object, of whatever class, NOT_MATCHED without one.
            ignored: (N,) labels on crowd regions, which are not counted.
            crowd: (M,) crowd regions, which are not counted.
        """
        on_object = matched != NOT_MATCHED
        np.add.at(self.counts, (label_class[on_object], object_class[matched[on_object]]), 1)
        np.add.at(self.counts[:, self._background], label_class[~on_object & ~ignored], 1)
        missed = ~crowd
        missed[matched[on_object]] = False
        np.add.at(self.counts[self._background], object_class[missed], 1)

    def named(self, names: Sequence[str]) -> Confusion:
        """The matrix with its names."""
        return Confusion(names=(*names, BACKGROUND), counts=tuple(tuple(row) for row in self.counts.tolist()))
