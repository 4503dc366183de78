"""Scores the labels of many images at once: each crop against its class and all that competes with it."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.campaign import ClassConfig, ScorerConfig
from schemas.records import Failed
from tasks.fingerprint import fingerprint
from tasks.models.registry import Floats, Pixels, Scorer
from tasks.score.bank import TextBank, text_bank
from tasks.score.crops import LEAST_SIDE, crop
from tasks.score.scores import Scores, score_table
from tasks.score.softmax import class_softmax, softmax
from tasks.score.templates import templates_of

_VERSION: Final = 1


class Score:
    """CLIP scores of labels.

    With s_t the cosine of a crop and text t (the best prompt of a class), and T the temperature (1 / logit_scale of
    the model unless configured), the probability of a label's class c is

        p_c = exp(s_c / T) / sum over t of exp(s_t / T)

    where t runs over all classes, c's own negatives and background (Radford et al. 2021, section 3.1.2 and figure 3).
    The margin is p_c less the greatest p_t of t other than c.
    """

    def __init__(self, scorer: Scorer, classes: Sequence[ClassConfig], config: ScorerConfig) -> None:
        """Take the model and what to compare with; texts are embedded on first use, or by `prepare`.

        Raises:
            UserError: The templates cannot be used.
        """
        self._scorer = scorer
        self._classes = tuple(classes)
        self._contexts = config.contexts
        self._background = config.background
        self._templates = templates_of(config.templates)
        self._factor = scorer.logit_scale if config.temperature is None else 1 / config.temperature
        self.key = fingerprint(
            "score",
            _VERSION,
            LEAST_SIDE,
            scorer.fingerprint,
            [[entry.name, entry.texts, entry.negatives] for entry in self._classes],
            self._templates,
            self._background,
            self._contexts,
            self._factor,
        )
        """What the step's rows depend on, beside the images and the boxes."""
        self.inputs = {
            "scorer weights": scorer.fingerprint,
            "scorer texts": fingerprint(
                [[entry.name, entry.texts, entry.negatives] for entry in self._classes],
                self._templates,
                self._background,
            ),
            # The model's own temperature belongs to its weights.
            "scorer settings": fingerprint(_VERSION, LEAST_SIDE, self._contexts, config.temperature),
        }
        """The same by what a user can change: name -> its fingerprint."""

    def prepare(self) -> None:
        """Embed the texts now.

        Raises:
            UserError: A text is too long for the model, or a class has one both as a prompt and as a negative.
        """
        _ = self._bank

    def __call__(
        self, images: Sequence[Pixels], boxes: Sequence[Floats], class_indices: Sequence[NDArray[np.int64]]
    ) -> list[Scores | Failed]:
        """Score the labels of some images; all their crops go through the model together.

        Args:
            images: (H, W, 3) uint8 each.
            boxes: (N, 4) xyxy each, in pixels of the image; N may be 0.
            class_indices: (N,) each, the class of every box.

        Returns:
            One item an image; Failed when a box or a score of it is not finite.

        Raises:
            UserError: As `prepare`.
        """
        sound = [bool(np.isfinite(each).all()) for each in boxes]
        crops = [
            crop(image, box, context)
            for context in self._contexts
            for image, each, ok in zip(images, boxes, sound, strict=True)
            if ok
            for box in each
        ]
        if not crops:
            return [Scores.none() if ok else _failed("a box has a coordinate that is not finite") for ok in sound]
        tight, wide = np.split(self._bank.similarities(self._scorer.embed_crops(crops)), 2)
        results: list[Scores | Failed] = []
        start = 0
        for classes, ok in zip(class_indices, sound, strict=True):
            if not ok:
                results.append(_failed("a box has a coordinate that is not finite"))
                continue
            rows = slice(start, start + len(classes))
            start = rows.stop
            results.append(self._score(tight[rows], wide[rows], np.asarray(classes, np.int64)))
        return results

    def class_probabilities(self, crops: Sequence[Pixels]) -> NDArray[np.float64]:
        """Probability of every class in each crop, against what competes with it, (N, C); NaN where CLIP gave NaN.

        Raises:
            UserError: As `prepare`.
        """
        similarities = self._bank.similarities(self._scorer.embed_crops(crops))
        return class_softmax(similarities, self._bank.competes, self._factor)

    def table(self, rows: Iterable[tuple[Sequence[str], Scores]]) -> pa.Table:
        """Lay out the scores of images as a table.

        Args:
            rows: For each image that did not fail its N label ids and its scores.

        Returns:
            A table of schema SCORES, a row a label, in the order given.
        """
        return score_table(rows)

    @cached_property
    def _bank(self) -> TextBank:
        return text_bank(self._scorer, self._classes, self._templates, self._background)

    def _score(self, tight: Floats, wide: Floats, classes: NDArray[np.int64]) -> Scores | Failed:
        if not len(classes):
            return Scores.none()
        broken = int((~np.isfinite(tight).all(axis=1) | ~np.isfinite(wide).all(axis=1)).sum())
        if broken:
            return _failed(f"CLIP gave no finite score for {broken} of {len(classes)} labels")
        competes = self._bank.competes[classes]
        rows = np.arange(len(classes))
        probability, others, best = softmax(tight, competes, classes, self._factor)
        probability_wide, others_wide, _ = softmax(wide, competes, classes, self._factor)
        alone = competes.sum(axis=1) == 1
        return Scores(
            similarity=tight[rows, classes],
            probability=probability.astype(np.float32),
            margin=(probability - others).astype(np.float32),
            other=[None if lonely else self._bank.names[text] for text, lonely in zip(best, alone, strict=True)],
            other_probability=np.where(alone, np.nan, others).astype(np.float32),
            similarity_wide=wide[rows, classes],
            probability_wide=probability_wide.astype(np.float32),
            margin_wide=(probability_wide - others_wide).astype(np.float32),
        )


def _failed(reason: str) -> Failed:
    return Failed(step="score", reason=reason)
