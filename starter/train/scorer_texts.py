"""Texts that the scorer learns to tell apart."""

from collections.abc import Sequence

import numpy as np

from starter.scenes.vocabulary import COLOURS, HELD_OUT, Noun
from tasks.score import fill, templates_of

BACKGROUND = (
    "background",
    "texture",
    "a blurry picture of nothing",
    "nothing",
    "an empty scene",
    "a pattern",
    "something else",
)


def pairs_of(vocabulary: Sequence[Noun]) -> list[tuple[str, str | None]]:
    """(noun, colour) pairs that training may name: every legal colour of tinted nouns, None for the others."""
    return [
        (noun.name, colour)
        for noun in vocabulary
        for colour in (COLOURS if noun.tinted else (None,))
        if (colour, noun.name) not in HELD_OUT
    ]


def noun_text(rng: np.random.Generator, noun: Noun, colour: str | None) -> str:
    """A text for a noun, by one of its names, in one of the templates that campaigns use."""
    names = (noun.name, *noun.synonyms)
    name = names[0] if rng.random() < 0.7 else names[int(rng.integers(len(names)))]
    return in_template(rng, f"{colour} {name}" if colour else name)


def colour_text(rng: np.random.Generator, colour: str) -> str:
    """A text for anything of a colour."""
    forms = ("{}", "a {} thing", "something {}", "a {} object")
    return in_template(rng, fill(forms[int(rng.integers(len(forms)))], colour))


def composed_texts(rng: np.random.Generator, nouns: Sequence[Noun], count: int) -> list[str]:
    """Triples "red dog", "dog", "red", each set into one template; held-out pairs are left out.

    Args:
        rng: Source of all choices.
        nouns: Tinted or not: a text may be of what no scene shows.
        count: Triples.

    Returns:
        3 * count texts.
    """
    texts: list[str] = []
    colours = list(COLOURS)
    while len(texts) < 3 * count:
        noun, colour = nouns[int(rng.integers(len(nouns)))], colours[int(rng.integers(len(colours)))]
        if (colour, noun.name) in HELD_OUT:
            continue
        names = (noun.name, noun.name, *noun.synonyms)
        name = names[int(rng.integers(len(names)))]
        presets = templates_of("photo")
        template = "{}" if rng.random() < 0.4 else presets[int(rng.integers(len(presets)))]
        texts += [fill(template, f"{colour} {name}"), fill(template, name), fill(template, f"{colour} thing")]
    return texts


def background_text(rng: np.random.Generator) -> str:
    """A text for a picture without an object."""
    return in_template(rng, BACKGROUND[int(rng.integers(len(BACKGROUND)))])


def in_template(rng: np.random.Generator, text: str) -> str:
    """Set a text into a random template, or into none."""
    if rng.random() < 0.4:
        return text
    templates = templates_of("photo" if rng.random() < 0.7 else "imagenet")
    return fill(templates[int(rng.integers(len(templates)))], text)
