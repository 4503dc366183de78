"""The labels that draws are played on: those of a run whose right answers are known."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.labels.arrays import RunLabels
from tasks.simulate.answers import CORRECT, NOT_AN_OBJECT
from tasks.simulate.reviewer import SECONDS, Errors, called, chances
from tasks.simulate.truth import RunTruth
from tasks.statistics.bounds import Bools, Floats, Ints


@dataclass(frozen=True)
class Board:
    """N labels with their right answers."""

    labels: RunLabels
    verdict: NDArray[np.int8]
    """(N,) places in LABEL_VERDICTS."""
    errors: Errors
    plants: int = 0
    """Known-wrong labels that are mixed in to see what the reviewer misses."""

    @property
    def correct(self) -> Bools:
        """(N,) labels that are right."""
        return np.asarray(self.verdict == CORRECT)

    @property
    def boxes(self) -> Bools:
        """(N,) labels that are delivered when people look at them: right, or mended."""
        return np.asarray(self.verdict != NOT_AN_OBJECT)

    def said(self, seed: int) -> NDArray[np.int8]:
        """What the reviewer of one draw says, or would say, of every label, (N,) places in LABEL_VERDICTS."""
        if not (self.errors.missed or self.errors.false_alarms):
            return self.verdict
        return called(self.verdict, chances(self.labels.label_ids.to_pylist(), seed), self.errors)


def board(labels: RunLabels, truth: RunTruth, errors: Errors, plants: int = 0) -> Board:
    """Take the labels whose right answers are known."""
    return Board(only(labels, truth.counted), truth.verdict[truth.counted], errors, plants)


def only(labels: RunLabels, kept: Bools) -> RunLabels:
    """Some labels of a run, and all of its images.

    Args:
        labels: N labels.
        kept: (N,) which.
    """
    return replace(
        labels,
        label_ids=labels.label_ids.filter(pa.array(kept)),
        class_index=labels.class_index[kept],
        image_index=labels.image_index[kept],
        boxes=labels.boxes[kept],
        signals=labels.signals[kept],
        p_correct=labels.p_correct[kept],
        accepted=labels.accepted[kept],
    )


def seconds_of(said: NDArray[np.int8]) -> Floats:
    """Time that answers take, (n,)."""
    return np.asarray(SECONDS[said], np.float64)


def rows_where(marked: Bools) -> Ints:
    """Places that are marked."""
    return np.asarray(np.flatnonzero(marked), np.int64)
