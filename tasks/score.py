"""Scores labels with CLIP: the crop of each against its class and against all that it might be instead.

A crop is the square around a box. It is compared with the text embeddings of classes, hard negatives and background,
each set into prompt templates; cosines become probabilities by softmax.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import ClassConfig, ScorerConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import SCORES
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import Floats, Pixels, Scorer

_VERSION: Final = 1

# Fewer pixels than this hold no picture to judge; the surroundings are taken in.
LEAST_SIDE: Final = 16

_PRESETS: Final = {
    "plain": ("{}",),
    "photo": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a close-up photo of a {}.",
        "a cropped photo of a {}.",
        "a picture of a {}.",
        "one {}.",
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of the N labels of one image, float32 (N,) each; `_wide` ones are of the crop with more context."""

    similarity: Floats
    """Cosine with the label's class, [-1, 1]."""
    probability: Floats
    """Softmax probability of the label's class, [0, 1]."""
    margin: Floats
    """Probability less that of the best other text, [-1, 1]."""
    other: list[str | None]
    """Best other text on the tight crop: a class's name, a negative or a background text; None without any."""
    other_probability: Floats
    """Its probability; NaN without any."""
    similarity_wide: Floats
    probability_wide: Floats
    margin_wide: Floats

    @classmethod
    def none(cls) -> "Scores":
        """Scores of an image without labels."""
        empty = np.zeros(0, np.float32)
        return cls(empty, empty, empty, [], empty, empty, empty, empty)


@dataclass(frozen=True, slots=True, eq=False)
class TextEmbeddings:
    """T texts: the C classes first, in order, then negatives and background."""

    names: tuple[str, ...]
    """T names for people: a class's name, otherwise the text itself."""
    vectors: Floats
    """(P, D) of unit length: one row a prompt, P >= T."""
    starts: NDArray[np.int64]
    """(T,) first row of each text in `vectors`; the rows of a text are consecutive."""
    competes: NDArray[np.bool_]
    """(C, T) whether a text is compared with a label of the class: all classes, its own negatives, background."""

    def similarities(self, embeddings: Floats) -> Floats:
        """Cosine of each (N, D) unit-length embedding with each text.

        A text with several prompts (only classes have them) counts as the best of its prompts: an object need not fit
        every synonym, and more prompts must not make a class likelier.

        Returns:
            (N, T) float32 in [-1, 1]; NaN for an embedding that is not finite.
        """
        finite = np.isfinite(embeddings).all(axis=1, keepdims=True)
        cosines = np.where(finite, np.clip(np.where(finite, embeddings, 0) @ self.vectors.T, -1, 1), np.nan)
        return np.asarray(np.maximum.reduceat(cosines, self.starts, axis=1), np.float32)


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
            [[entry.key, entry.texts, entry.negatives] for entry in self._classes],
            self._templates,
            self._background,
            self._contexts,
            self._factor,
        )
        """What the step's rows depend on, beside the images and the boxes."""
        self.inputs = {"scorer weights": scorer.fingerprint, **declared_inputs(classes, config)}
        """The same by what a user can change: name -> its fingerprint."""

    def prepare(self) -> None:
        """Embed the texts now.

        Raises:
            UserError: A text is too long for the model, or a class has one both as a prompt and as a negative.
        """
        _ = self._embeddings

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
        tight, wide = np.split(self._embeddings.similarities(self._scorer.embed_crops(crops)), 2)
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
        similarities = self._embeddings.similarities(self._scorer.embed_crops(crops))
        return class_softmax(similarities, self._embeddings.competes, self._factor)

    def table(self, rows: Iterable[tuple[Sequence[str], Scores]]) -> pa.Table:
        """Lay out label ids and scores of each image that did not fail as a table of schema SCORES, a row a label.

        `clip_other_probability` is null where there is no other text.
        """
        ids: list[str] = []
        kept: list[Scores] = []
        for label_ids, scores in rows:
            ids.extend(label_ids)
            kept.append(scores)
        kept = kept or [Scores.none()]
        columns: dict[str, Any] = {"label_id": ids, "clip_other": [text for scores in kept for text in scores.other]}
        for name in (name for name in SCORES.names if name not in columns):
            columns[name] = np.concatenate([getattr(scores, name.removeprefix("clip_")) for scores in kept])
        return pa.table(
            [pa.array(columns[field.name], field.type, from_pandas=True) for field in SCORES], schema=SCORES
        )

    @cached_property
    def _embeddings(self) -> TextEmbeddings:
        return embed_texts(self._scorer, self._classes, self._templates, self._background)

    def _score(self, tight: Floats, wide: Floats, classes: NDArray[np.int64]) -> Scores | Failed:
        if not len(classes):
            return Scores.none()
        broken = int((~np.isfinite(tight).all(axis=1) | ~np.isfinite(wide).all(axis=1)).sum())
        if broken:
            return _failed(f"CLIP gave no finite score for {broken} of {len(classes)} labels")
        competes = self._embeddings.competes[classes]
        rows = np.arange(len(classes))
        probability, others, best = softmax(tight, competes, classes, self._factor)
        probability_wide, others_wide, _ = softmax(wide, competes, classes, self._factor)
        alone = competes.sum(axis=1) == 1
        return Scores(
            similarity=tight[rows, classes],
            probability=probability.astype(np.float32),
            margin=(probability - others).astype(np.float32),
            other=[None if lonely else self._embeddings.names[text] for text, lonely in zip(best, alone, strict=True)],
            other_probability=np.where(alone, np.nan, others).astype(np.float32),
            similarity_wide=wide[rows, classes],
            probability_wide=probability_wide.astype(np.float32),
            margin_wide=(probability_wide - others_wide).astype(np.float32),
        )


def declared_inputs(classes: Sequence[ClassConfig], config: ScorerConfig) -> dict[str, str]:
    """What labels depend on of what a campaign says about scoring: name -> its fingerprint; no model is needed.

    Raises:
        UserError: The templates cannot be used.
    """
    texts = [[entry.key, entry.texts, entry.negatives] for entry in classes]
    return {
        "scorer texts": fingerprint(texts, templates_of(config.templates), config.background),
        # The model's own temperature belongs to its weights.
        "scorer settings": fingerprint(_VERSION, LEAST_SIDE, config.contexts, config.temperature),
    }


def _failed(reason: str) -> Failed:
    return Failed(step="score", reason=reason)


def embed_texts(
    scorer: Scorer, classes: Sequence[ClassConfig], templates: Sequence[str], background: Sequence[str]
) -> TextEmbeddings:
    """Embed all texts, each ensembled over the templates.

    A negative or background text that is a class's prompt, letter case aside, is that class already and is left out.

    Raises:
        UserError: A class has one text as a prompt and as a negative, or a text is too long for the model.
    """
    names, prompts, negatives = _arrange(classes, background)
    vectors = ensembled(scorer, [text for texts in prompts for text in texts], templates)
    starts = np.cumsum([0] + [len(texts) for texts in prompts[:-1]])
    competes = np.ones((len(classes), len(names)), np.bool_)
    for column, name in enumerate(names[len(classes) :], len(classes)):
        if name.casefold() in negatives:
            owners = negatives[name.casefold()]
            competes[:, column] = [index in owners for index in range(len(classes))]
    return TextEmbeddings(tuple(names), vectors, starts.astype(np.int64), competes)


def _arrange(
    classes: Sequence[ClassConfig], background: Sequence[str]
) -> tuple[list[str], list[tuple[str, ...]], dict[str, set[int]]]:
    """Names and prompts of every text, and the classes that each negative belongs to; background belongs to all."""
    names = [entry.key for entry in classes]
    prompts = [entry.texts for entry in classes]
    taken = {text.casefold() for texts in prompts for text in texts}
    everyones = {text.casefold() for text in background}
    negatives: dict[str, set[int]] = {}
    for index, entry in enumerate(classes):
        both = [text for text in entry.negatives if text.casefold() in {own.casefold() for own in entry.texts}]
        if both:
            raise UserError(f"class {entry.name}: {both[0]!r} is a prompt and a negative; remove one of them")
        for text in entry.negatives:
            folded = text.casefold()
            if folded in taken or folded in everyones:
                continue
            if folded not in negatives:
                names.append(text)
                prompts.append((text,))
            negatives.setdefault(folded, set()).add(index)
    for text in background:
        if text.casefold() not in taken:
            taken.add(text.casefold())
            names.append(text)
            prompts.append((text,))
    return names, prompts, negatives


def ensembled(scorer: Scorer, texts: Sequence[str], templates: Sequence[str]) -> Floats:
    """Embed texts, (T, D): each the mean of the unit-length embeddings of its filled templates, of unit length again.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4.
    """
    filled = [fill(template, text) for text in texts for template in templates]
    embedded = scorer.embed_texts(filled).reshape(len(texts), len(templates), -1)
    mean = embedded.astype(np.float64).mean(axis=1)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.asarray(mean / np.maximum(length, np.finfo(np.float64).tiny), np.float32)


def softmax(
    similarities: Floats, competes: NDArray[np.bool_], classes: NDArray[np.int64], factor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Probability of each label's class and of the best other text.

    p_t = exp(factor s_t) / sum of exp(factor s_u) over the texts u that compete.

    Args:
        similarities: (N, T) cosines.
        competes: (N, T) the texts that count for each label, its class among them.
        classes: (N,) text index of each label's class.
        factor: 1 / temperature.

    Returns:
        Probability of the class, that of the best other text (0 without any), and that text's index, (N,) each.
    """
    logits = np.where(competes, similarities.astype(np.float64) * factor, -np.inf)
    # Less the greatest, so that no exponential overflows.
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    rows = np.arange(len(classes))
    own = probabilities[rows, classes]
    logits[rows, classes] = -np.inf
    # By logits: far below the best, probabilities are all zero and would tie.
    best = logits.argmax(axis=1)
    return own, np.where(np.isfinite(logits[rows, best]), probabilities[rows, best], 0), best


def class_softmax(similarities: Floats, competes: NDArray[np.bool_], factor: float) -> NDArray[np.float64]:
    """Probability of every class, as `softmax` has it for one; work and memory grow with N (T + C) beside a product.

    Args:
        similarities: (N, T) cosines, the C classes first.
        competes: (C, T) the texts that count for each class; every class counts for every other.
        factor: 1 / temperature.

    Returns:
        (N, C); NaN in the rows of which a similarity is NaN.
    """
    count = len(competes)
    logits = similarities.astype(np.float64) * factor
    # Less the greatest of the texts that count for all; of another, a class's own negative, only an excess can
    # overflow, and at e^600 the class's probability is 0 already.
    logits = np.minimum(logits - logits[:, competes.all(axis=0)].max(axis=1, keepdims=True), 600)
    weights = np.exp(logits)
    return np.asarray(weights[:, :count] / (weights @ competes.T.astype(np.float64)), np.float64)


def crop(image: Pixels, box: Floats, context: float) -> Pixels:
    """Cut a box, (4,) xyxy in pixels, with its surroundings out of an (H, W, 3) uint8 image, unmasked.

    The cut is a square about the box's centre whose side is `context` times the box's longer side, and at least 16
    pixels: CLIP's preprocessing keeps the central square of what it is given, so anything else would lose the ends of
    a long object. Edges are rounded to whole pixels. A square that leaves the image is shifted back into it; where
    it is larger than the image it is cut to it, and only then is it no square. The box may reach outside or have no
    area.

    Returns:
        (h, w, 3) view of the image, 1 <= h <= H, 1 <= w <= W.

    Raises:
        ValueError: A coordinate is not finite.
    """
    if not np.isfinite(box).all():
        raise ValueError("a box has a coordinate that is not finite")
    x0, y0, x1, y1 = (float(value) for value in box)
    side = max(max(abs(x1 - x0), abs(y1 - y0)) * context, LEAST_SIDE)
    left, right = span((x0 + x1) / 2, side, image.shape[1])
    top, bottom = span((y0 + y1) / 2, side, image.shape[0])
    return image[top:bottom, left:right]


def span(centre: float, side: float, length: int) -> tuple[int, int]:
    """First pixel and the one after the last of a side about a centre, shifted into [0, length); pixels."""
    count = min(math.ceil(side), length)
    first = round(centre - count / 2)
    first = min(max(first, 0), length - count)
    return first, first + count


def templates_of(choice: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the templates that a preset (plain, photo or imagenet) or a user's own list stands for.

    Raises:
        UserError: No such preset, an empty list, or a template without exactly one {}.
    """
    if choice == "imagenet":
        # The 80 of Radford et al. 2021, section 3.1.4. Imported here, since open_clip brings torch.
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    if isinstance(choice, str):
        if choice not in _PRESETS:
            raise UserError(f"models.scorer.templates: unknown preset {choice!r}; use plain, photo or imagenet")
        return _PRESETS[choice]
    if not choice:
        raise UserError("models.scorer.templates: the list is empty; use plain, or give at least one template")
    for template in choice:
        if template.count("{}") != 1:
            raise UserError(f"models.scorer.templates: {template!r} must have exactly one {{}}, where the text goes")
    return tuple(choice)


def fill(template: str, text: str) -> str:
    """Set a text into a template; braces in the text mean nothing."""
    return template.replace("{}", text)
