"""Chooses the class of each object from the scores of all texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.models.registry import Floats, Phrase


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen for N objects; arrays are (N,)."""

    classes: NDArray[np.int64]
    """Index of the best class."""
    prompts: NDArray[np.int64]
    """Index of the phrase that gave its score."""
    scores: Floats
    margins: Floats
    runners_up: list[str | None]
    look_alike: NDArray[np.bool_]
    """Whether a negative text of the class scores higher than the class."""


class Texts:
    """Which phrases stand for which class."""

    def __init__(self, phrases: Sequence[Phrase], class_names: Sequence[str]) -> None:
        """Take the phrases in the order of the score columns."""
        self._names = [*class_names, *(phrase.text for phrase in phrases if phrase.negative)]
        self._prompts = [
            np.array([i for i, phrase in enumerate(phrases) if phrase.class_index == k and not phrase.negative], int)
            for k in range(len(class_names))
        ]
        self._negatives = np.array([i for i, phrase in enumerate(phrases) if phrase.negative], int)
        self._of_class = np.array([phrase.class_index for phrase in phrases if phrase.negative], int)

    def choose(self, scores: Floats) -> Choice:
        """Choose for objects with (N, P) scores of the phrases; the rules are those of the detect step."""
        rows = np.arange(len(scores))
        by_class = np.stack([scores[:, prompts].max(axis=1) for prompts in self._prompts], axis=1)
        classes = by_class.argmax(axis=1)
        best = by_class[rows, classes]
        negatives = scores[:, self._negatives]
        own = self._of_class[None, :] == classes[:, None]
        negatives = np.where(own, negatives, -np.inf)
        others = by_class.copy()
        others[rows, classes] = -np.inf
        rivals = np.concatenate([others, negatives], axis=1)
        second = rivals.argmax(axis=1)
        rival = rivals[rows, second]
        alone = np.isneginf(rival)
        return Choice(
            classes=classes.astype(np.int64),
            prompts=np.array(
                [self._prompts[k][scores[row, self._prompts[k]].argmax()] for row, k in enumerate(classes)], np.int64
            ),
            scores=best.astype(np.float32),
            margins=np.where(alone, best, best - np.where(alone, 0, rival)).astype(np.float32),
            runners_up=[None if lonely else self._names[text] for text, lonely in zip(second, alone, strict=True)],
            look_alike=negatives.max(axis=1, initial=-np.inf) > best,
        )
