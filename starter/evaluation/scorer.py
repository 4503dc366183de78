"""Measures the scorer: which name fits a crop best."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.campaign import ScorerConfig
from starter.evaluation.fresh import OTHER_STYLE, fresh_scene
from starter.scenes.scene import SceneObject
from starter.scenes.vocabulary import COLOURS, HELD_OUT, SPLITS
from tasks.models.registry import Floats, Pixels, Scorer, load_scorer
from tasks.models.runtime import Runtime
from tasks.score import crop, fill, softmax, templates_of

SEEN_SEED: Final = 14
HELD_OUT_SEED: Final = 15


def measure_scorer(count: int, config: ScorerConfig | None = None) -> dict[str, float]:
    """Classify the true crops of freshly drawn scenes by their most similar text.

    Args:
        count: Scenes a measurement.
        config: Which scorer, templates and background; by default the bundled one with a campaign's defaults.

    Returns:
        top1 (nouns of the core split and the background texts compete); phrase_top1 (all nouns, tinted ones in
        every colour, held-out pairs among them, compete); held_out_top1 (the same for objects of held-out pairs);
        background_top1 (random squares that touch no object go to a background text rather than to a noun);
        probability (mean softmax probability of the answers that top1 counts); other_top1, other_probability (the
        same in the other emoji style).
    """
    config = config or ScorerConfig()
    scorer = load_scorer(config, Runtime("cpu", "fp32"))
    nouns = SPLITS["core"][0]
    names = [noun.name for noun in nouns]
    phrases = [
        f"{colour} {noun.name}" if colour else noun.name
        for noun in nouns
        for colour in (COLOURS if noun.tinted else (None,))
    ]
    templates = templates_of(config.templates)
    plain = _bank(scorer, [*names, *config.background], templates)
    exact = _bank(scorer, phrases, templates)
    objects, crops, empty = _crops(SEEN_SEED, count, "core")
    seen = scorer.embed_crops(crops)
    strangers, strange_crops, _ = _crops(SEEN_SEED, count, "core", OTHER_STYLE)
    strange = scorer.embed_crops(strange_crops)
    factor = scorer.logit_scale if config.temperature is None else 1 / config.temperature
    others, held_out_crops, _ = _crops(HELD_OUT_SEED, count, "core-heldout")
    unseen = [number for number, item in enumerate(others) if (item.colour, item.noun) in HELD_OUT]
    held_out = scorer.embed_crops([held_out_crops[number] for number in unseen])
    return {
        "top1": _share(seen @ plain.T, [names.index(item.noun) for item in objects]),
        "phrase_top1": _share(seen @ exact.T, [phrases.index(item.phrase) for item in objects]),
        "held_out_top1": _share(held_out @ exact.T, [phrases.index(others[number].phrase) for number in unseen]),
        "background_top1": float(np.mean((scorer.embed_crops(empty) @ plain.T).argmax(axis=1) >= len(names))),
        "probability": _confidence(seen @ plain.T, factor),
        "other_top1": _share(strange @ plain.T, [names.index(item.noun) for item in strangers]),
        "other_probability": _confidence(strange @ plain.T, factor),
    }


def _bank(scorer: Scorer, texts: Sequence[str], templates: Sequence[str]) -> Floats:
    """(T, D) unit-length mean of each text's filled templates."""
    filled = scorer.embed_texts([fill(template, text) for text in texts for template in templates])
    mean = filled.reshape(len(texts), len(templates), -1).mean(axis=1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def _share(similarities: Floats, right: Sequence[int]) -> float:
    return float(np.mean(similarities.argmax(axis=1) == np.asarray(right)))


def _confidence(similarities: Floats, factor: float) -> float:
    """Mean probability of the most similar text."""
    competes = np.ones(similarities.shape, np.bool_)
    return float(softmax(similarities, competes, similarities.argmax(axis=1), factor)[0].mean())


def _crops(
    seed: int, count: int, split: str, style: str = "noto"
) -> tuple[list[SceneObject], list[Pixels], list[Pixels]]:
    """Objects of the scenes, their crops, and squares in which nothing is."""
    objects: list[SceneObject] = []
    crops: list[Pixels] = []
    empty: list[Pixels] = []
    for index in range(count):
        scene = fresh_scene(seed, index, split, style)
        height, width = scene.image.shape[:2]
        objects += scene.objects
        crops += [crop(scene.image, np.asarray(item.xyxy, np.float32), 1.0) for item in scene.objects]
        rng = np.random.default_rng([seed, index, 2])
        side = int(rng.integers(30, 100))
        left, top = int(rng.integers(width - side)), int(rng.integers(height - side))
        if not any(item.mask[top : top + side, left : left + side].any() for item in scene.objects):
            empty.append(scene.image[top : top + side, left : left + side])
    return objects, crops, empty
