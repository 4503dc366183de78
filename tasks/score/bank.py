"""The texts that a crop is compared with: classes, their look-alikes, background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.campaign import ClassConfig
from schemas.errors import UserError
from tasks.models.registry import Floats, Scorer
from tasks.score.templates import fill


@dataclass(frozen=True, slots=True, eq=False)
class TextBank:
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
        """Cosine of each embedding with each text.

        A text with several prompts (only classes have them) counts as the best of its prompts: an object need not fit
        every synonym, and more prompts must not make a class likelier.

        Args:
            embeddings: (N, D) of unit length.

        Returns:
            (N, T) float32 in [-1, 1]; NaN for an embedding that is not finite.
        """
        finite = np.isfinite(embeddings).all(axis=1, keepdims=True)
        cosines = np.where(finite, np.clip(np.where(finite, embeddings, 0) @ self.vectors.T, -1, 1), np.nan)
        return np.asarray(np.maximum.reduceat(cosines, self.starts, axis=1), np.float32)


def text_bank(
    scorer: Scorer, classes: Sequence[ClassConfig], templates: Sequence[str], background: Sequence[str]
) -> TextBank:
    """Embed all texts, each ensembled over the templates.

    The embedding of a text is the mean of the unit-length embeddings of its filled templates, made unit-length again
    (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4). A
    negative or background text that is a class's prompt, letter case aside, is that class already and is left out.

    Args:
        scorer: Embeds texts.
        classes: At least one.
        templates: With one {} each.
        background: Texts of what is no object.

    Raises:
        UserError: A class has one text as a prompt and as a negative, or a text is too long for the model.
    """
    names, prompts, negatives = _arrange(classes, background)
    vectors = _ensembled(scorer, [text for texts in prompts for text in texts], templates)
    starts = np.cumsum([0] + [len(texts) for texts in prompts[:-1]])
    competes = np.ones((len(classes), len(names)), np.bool_)
    for column, name in enumerate(names[len(classes) :], len(classes)):
        if name.casefold() in negatives:
            owners = negatives[name.casefold()]
            competes[:, column] = [index in owners for index in range(len(classes))]
    return TextBank(tuple(names), vectors, starts.astype(np.int64), competes)


def _arrange(
    classes: Sequence[ClassConfig], background: Sequence[str]
) -> tuple[list[str], list[tuple[str, ...]], dict[str, set[int]]]:
    """Names and prompts of every text, and the classes that each negative belongs to; background belongs to all."""
    names = [entry.name for entry in classes]
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


def _ensembled(scorer: Scorer, texts: Sequence[str], templates: Sequence[str]) -> Floats:
    filled = [fill(template, text) for text in texts for template in templates]
    embedded = scorer.embed_texts(filled).reshape(len(texts), len(templates), -1)
    mean = embedded.astype(np.float64).mean(axis=1)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.asarray(mean / np.maximum(length, np.finfo(np.float64).tiny), np.float32)
