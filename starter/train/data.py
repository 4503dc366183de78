"""Training data of the detector: scenes drawn once and kept on disk, image batches, captions with token positions."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vouch_labels.starter.scenes.scene import draw_scene
from vouch_labels.starter.scenes.vocabulary import COLOURS, HELD_OUT, Noun

_MOST_PHRASES = 30
_CHUNK = 200

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SceneCache:
    """Scenes of one size.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        boxes: N arrays (K, 4) float32, xyxy relative to the image, in [0, 1].
        masks: N arrays (K, H, W) bool packed by numpy.packbits along the last axis.
    """

    images: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    nouns: list[list[str]]
    colours: list[list[str | None]]
    masks: list[NDArray[np.uint8]]


def scene_cache(
    folder: Path, count: int, seed: int, split: str, side: int, workers: int = 1, width: int | None = None
) -> SceneCache:
    """Open the cache of these scenes in a folder, drawing it first where it is missing.

    Scenes are drawn 200 at a time, in so many processes; `side` is their height in pixels, and their width where none
    is given. Training uses seeds from 1000 on, evaluation the ones below.
    """
    root = folder / (f"{split}-{seed}-{side}" if width is None else f"{split}-{seed}-{side}x{width}")
    root.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-count // _CHUNK))
    missing = [chunk for chunk in chunks if not (root / f"{chunk}.json").exists()]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            list(
                pool.map(
                    _draw_chunk,
                    *zip(*((root, chunk, seed, split, side, width or side) for chunk in missing), strict=True),
                )
            )
    records = [json.loads((root / f"{chunk}.json").read_text(encoding="utf-8")) for chunk in chunks]
    scenes = [scene for record in records for scene in record]
    masks = [packed for chunk in chunks for packed in _masks(root, chunk)]
    return SceneCache(
        images=np.concatenate([np.load(root / f"{chunk}-images.npy", mmap_mode="r") for chunk in chunks]),
        boxes=[np.asarray(scene["boxes"], np.float32).reshape(-1, 4) for scene in scenes],
        nouns=[scene["nouns"] for scene in scenes],
        colours=[scene["colours"] for scene in scenes],
        masks=masks,
    )


def _draw_chunk(root: Path, chunk: int, seed: int, split: str, height: int, width: int) -> None:
    scenes = [draw_scene(seed, chunk * _CHUNK + offset, split, height, width) for offset in range(_CHUNK)]
    np.save(root / f"{chunk}-images.npy", np.stack([scene.image for scene in scenes]))
    packed = [np.packbits(item.mask, axis=-1) for scene in scenes for item in scene.objects]
    np.save(root / f"{chunk}-masks.npy", np.stack(packed))
    rows = [
        {
            "boxes": [
                [value / side for value, side in zip(item.xyxy, (width, height) * 2, strict=True)]
                for item in scene.objects
            ],
            "nouns": [item.noun for item in scene.objects],
            "colours": [item.colour for item in scene.objects],
        }
        for scene in scenes
    ]
    # Written last: a chunk counts only when it is whole.
    (root / f"{chunk}.json").write_text(json.dumps(rows), encoding="utf-8")


def _masks(root: Path, chunk: int) -> list[NDArray[np.uint8]]:
    packed = np.load(root / f"{chunk}-masks.npy", mmap_mode="r")
    counts = [len(scene["nouns"]) for scene in json.loads((root / f"{chunk}.json").read_text(encoding="utf-8"))]
    ends = np.cumsum(counts)
    return [packed[end - count : end] for end, count in zip(ends, counts, strict=True)]


def normalised_batch(images: NDArray[np.uint8], size: tuple[int, int], gain: Tensor | None = None) -> Tensor:
    """Resize (B, H, W, 3) uint8 RGB to (B, 3, *size) float32, brighten by (B, 1, 1, 1) factors, and normalise."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    if pixels.shape[-2:] != size:
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    if gain is not None:
        pixels = (pixels * gain).clamp(0, 1)
    return (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]


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
) -> Prompt:
    """Ask for some of a scene's objects and for things that are absent, by at most _MOST_PHRASES phrases.

    A third of the prompts name colours ("blue car. red car. dog."); no held-out pair is ever named. Nouns come
    under one of their names, in any order; each present noun is left out now and then, so that the model learns to
    find what it is asked for instead of whatever stands out.
    """
    by_colour = rng.random() < 0.35
    present = set(scene_nouns)
    count = int(rng.integers(4, _MOST_PHRASES + 1))
    absent = [noun for noun in nouns if noun.name not in present]
    # Now and then nothing, or half, of what is there: hard negatives.
    kept = (0.0, 0.5, 0.95)[int(rng.choice(3, p=[0.15, 0.2, 0.65]))]
    chosen = [noun for noun in nouns if noun.name in present and rng.random() < kept]
    chosen += [absent[int(i)] for i in rng.permutation(len(absent))[: max(count - len(chosen), 0)]]
    phrases: list[tuple[str, str, str | None]] = []
    for noun in chosen:
        names = (noun.name, *noun.synonyms)
        name = noun.name if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
        if by_colour and noun.tinted:
            seen = {colour for n, colour in zip(scene_nouns, scene_colours, strict=True) if n == noun.name}
            allowed = [colour for colour in COLOURS if (colour, noun.name) not in HELD_OUT]
            asked = [colour for colour in allowed if rng.random() < (0.88 if colour in seen else 0.45)]
            phrases += [(f"{colour} {name}", noun.name, colour) for colour in asked]
        else:
            phrases.append((name, noun.name, None))
    order: NDArray[np.int64] = rng.permutation(len(phrases))[:_MOST_PHRASES]
    phrases = [phrases[int(i)] for i in order]
    spans, position = [], 1
    for text, _, _ in phrases:
        length = _length(tokenizer, text)
        spans.append((position, position + length))
        position += length + 1
    targets = [_named(phrases, n, colour) for n, colour in zip(scene_nouns, scene_colours, strict=True)]
    return Prompt(" ".join(text + "." for text, _, _ in phrases), spans, targets)


def _named(phrases: list[tuple[str, str, str | None]], noun: str, colour: str | None) -> int:
    for index, (_, name, wanted) in enumerate(phrases):
        if name == noun and wanted in (None, colour):
            return index
    return -1


@lru_cache(maxsize=4096)
def _length(tokenizer: Any, text: str) -> int:  # noqa: ANN401 - a transformers tokenizer
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
