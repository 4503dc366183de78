"""Captions for training the detector, with the token positions that each object should light up."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starter.scenes.vocabulary import COLOURS, HELD_OUT, Noun


@dataclass(frozen=True)
class Prompt:
    """A caption and what it asks for.

    Attributes:
        caption: Phrases, each ended by a full stop.
        spans: Of each phrase, its first token and the one behind its last, counted with [CLS] as token 0.
        targets: For each object of the scene the phrase that names it, or -1 if none does.
    """

    caption: str
    spans: list[tuple[int, int]]
    targets: list[int]


def draw_prompt(
    rng: np.random.Generator,
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    nouns: tuple[Noun, ...],
    scene_nouns: list[str],
    scene_colours: list[str | None],
    most: int = 30,
) -> Prompt:
    """Ask for some of a scene's objects and for things that are absent.

    A third of the prompts name colours ("blue car. red car. dog."); no held-out pair is ever named. Nouns come
    under one of their names, in any order; each present noun is left out now and then, so that the model learns to
    find what it is asked for instead of whatever stands out.

    Args:
        rng: Source of all choices.
        tokenizer: What the model will cut the caption with.
        nouns: All nouns of the split.
        scene_nouns: Class name of each object.
        scene_colours: Colour of each object, or None.
        most: At most this many phrases.
    """
    by_colour = rng.random() < 0.35
    present = set(scene_nouns)
    count = int(rng.integers(4, most + 1))
    absent = [noun for noun in nouns if noun.name not in present]
    # Now and then nothing, or half, of what is there: look-alikes of what is asked for must not be taken for it.
    kept = (0.0, 0.5, 0.95)[int(rng.choice(3, p=[0.15, 0.2, 0.65]))]
    chosen = [noun for noun in nouns if noun.name in present and rng.random() < kept]
    chosen += [absent[int(i)] for i in rng.permutation(len(absent))[: max(count - len(chosen), 0)]]
    phrases: list[tuple[str, str, str | None]] = []
    for noun in chosen:
        names = (noun.name, *noun.synonyms)
        name = noun.name if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
        if by_colour and noun.tinted:
            seen = {colour for n, colour in zip(scene_nouns, scene_colours, strict=True) if n == noun.name}
            phrases += [(f"{colour} {name}", noun.name, colour) for colour in _colours(rng, noun, seen)]
        else:
            phrases.append((name, noun.name, None))
    order: NDArray[np.int64] = rng.permutation(len(phrases))[:most]
    phrases = [phrases[int(i)] for i in order]
    spans, position = [], 1
    for text, _, _ in phrases:
        length = _length(tokenizer, text)
        spans.append((position, position + length))
        position += length + 1
    targets = [_named(phrases, n, colour) for n, colour in zip(scene_nouns, scene_colours, strict=True)]
    return Prompt(" ".join(text + "." for text, _, _ in phrases), spans, targets)


def _colours(rng: np.random.Generator, noun: Noun, seen: set[str | None]) -> list[str]:
    allowed = [colour for colour in COLOURS if (colour, noun.name) not in HELD_OUT]
    return [colour for colour in allowed if rng.random() < (0.88 if colour in seen else 0.45)]


def _named(phrases: list[tuple[str, str, str | None]], noun: str, colour: str | None) -> int:
    for index, (_, name, wanted) in enumerate(phrases):
        if name == noun and wanted in (None, colour):
            return index
    return -1


@lru_cache(maxsize=4096)
def _length(tokenizer: Any, text: str) -> int:  # noqa: ANN401
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
